"""Pictures as a caller gives them: every form, in order, read ahead, and named where one is wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shopvision.errors import ItemError, UserError
from shopvision.images.door import FetchedPicture
from shopvision.images.given import OwnFilesDoor, Picture, embed
from shopvision.images.preprocessing import Preprocessing


class MeanColour:
    """Pictures as the direction of their mean colour; notes how many come at once."""

    preprocessing = Preprocessing(size=(8, 8))
    batch_size = 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        colours = batch.astype(np.float32).mean(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def photo(folder: Path, name: str, colour: tuple[int, int, int]) -> Path:
    path = folder / f"{name}.png"
    Image.new("RGB", (20, 12), colour).save(path)
    return path


def test_vectors_come_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    red, green = photo(tmp_path, "red", (200, 0, 0)), photo(tmp_path, "green", (0, 90, 0))
    blue = np.full((5, 9, 3), (0, 0, 7), np.uint8)
    encoder = MeanColour()
    pictures: list[Picture] = [red, blue, str(green), red, green]
    np.testing.assert_allclose(embed(pictures, encoder, 3), np.eye(3)[[0, 2, 1, 0, 1]], atol=1e-6)
    assert encoder.batches == [2, 1]  # what was embedded before is not embedded again
    assert embed([], encoder, 3).shape == (0, 3)


def test_the_next_batch_is_read_while_one_waits_for_a_slow_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [photo(tmp_path, str(number), (number + 1, 0, 0)) for number in range(4)]
    fetch, last_is_read = OwnFilesDoor.fetch, threading.Event()

    def slow_first(door: OwnFilesDoor, uri: str) -> FetchedPicture:
        if uri == str(paths[0]):
            assert last_is_read.wait(30)
        if uri == str(paths[3]):
            last_is_read.set()
        return fetch(door, uri)

    monkeypatch.setattr(OwnFilesDoor, "fetch", slow_first)
    np.testing.assert_allclose(embed(paths, MeanColour(), 3), np.eye(3)[[0, 0, 0, 0]], atol=1e-6)


def test_the_wrong_one_is_named(tmp_path: Path) -> None:
    red, black = photo(tmp_path, "red", (200, 0, 0)), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ItemError, match=r"Picture 2: .*missing\.png: No such file") as found:
        embed([red, red, tmp_path / "missing.png"], MeanColour(), 3)
    assert found.value.code == "not_found"
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(ItemError, match=f"Picture 0: {path} is not an ordinary file"):
            embed([path], MeanColour(), 3)
    with pytest.raises(ItemError, match=r"'a\\x00b' can be no path: embedded null byte"):
        embed(["a\0b"], MeanColour(), 3)
    with pytest.raises(ItemError, match="Picture 1: The model gives this picture no finite vector"):
        embed([red, black], MeanColour(), 3)
    with pytest.raises(UserError, match=r"Picture 1: An array must be uint8 \(height, width, 3\), RGB"):
        embed([tmp_path / "missing.png", black[0]], MeanColour(), 3)
    with pytest.raises(ItemError, match=r"Picture 0: file:///.* leads out of the allowed folders"):
        embed([red.as_uri()], MeanColour(), 3)
