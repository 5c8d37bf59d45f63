"""Pictures cut to a garment before a pair model looks: what is seen, and the detector as a part of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shopvision.errors import ItemError, UserError
from shopvision.fashion.detection.predict import Detector
from shopvision.fashion.detection.regions import Region
from shopvision.fashion.detection.sources import import_detector
from shopvision.images import PictureDoor
from shopvision.images.decoding import Decoded
from shopvision.images.preprocessing import fit
from shopvision.items.item import Item
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.image_encoders import fetch_pictures
from shopvision.matching.families.image_two_tower import ImageTwoTowerOptions
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.families.picture_regions import RegionPreprocessing
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.scoring.item_pictures import gather_vectors
from shopvision.matching.scoring.predict import PairScorer
from shopvision.settings import get_settings
from tests.unit.fashion.tiny_detectors import save_tiny
from tests.unit.matching.matcher_world import save_encoders
from tests.unit.matching.tiny_matcher import PREPROCESSING, save_model


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    import_detector(f"local-dir:{save_tiny('yolos', folder / 'published')}", folder / "version")
    return folder / "version"


def half_red(width: int = 200, height: int = 100) -> Image.Image:
    """A picture whose right half is red."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, width // 2 :] = (200, 0, 0)
    return Image.fromarray(pixels)


def whole(image: Image.Image) -> Decoded:
    return Decoded(image, image.size, (0.0, 0.0, float(image.width), float(image.height)))


def finding(monkeypatch: pytest.MonkeyPatch, *found: Region | ItemError) -> None:
    answer: Any = found[0] if found and isinstance(found[0], ItemError) else tuple(found)
    monkeypatch.setattr(Detector, "detect", lambda *_: [answer])


def test_the_main_garment_with_a_margin_is_what_is_prepared(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = RegionPreprocessing.of(PREPROCESSING, detector)
    finding(
        monkeypatch,
        Region((0.0, 0.0, 40.0, 40.0), "bag", 0.99),
        Region((120.0, 20.0, 180.0, 80.0), "dress", 0.9),  # larger
        Region((0.0, 0.0, 200.0, 100.0), "shoes", 0.4),  # not sure enough
    )
    part = preprocessing.part(whole(half_red()))
    assert part.size == (72, 72)  # a tenth on each side
    assert (fit(whole(half_red()), preprocessing) == (200, 0, 0)).all()
    plain = fit(whole(half_red()), preprocessing.whole)
    assert (plain == 255).any()
    np.testing.assert_array_equal(plain, fit(whole(half_red()), PREPROCESSING))
    larger = preprocessing.model_copy(update={"size": (40, 40)})  # as training does to cut from
    assert (fit(whole(half_red()), larger) == (200, 0, 0)).all()


@pytest.mark.parametrize("found", [(), (ItemError("bad_boxes", "no finite boxes"),)])
def test_without_a_garment_the_whole_picture_is(
    detector: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[Any, ...]
) -> None:
    preprocessing = RegionPreprocessing.of(PREPROCESSING, detector)
    finding(monkeypatch, *found)
    np.testing.assert_array_equal(fit(whole(half_red()), preprocessing), fit(whole(half_red()), PREPROCESSING))


def test_a_picture_that_no_detector_takes_is_read_as_a_whole(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ItemError("unfit_shape", "too long and narrow")

    monkeypatch.setattr(Detector, "prepare", refuse)
    preprocessing = RegionPreprocessing.of(PREPROCESSING, detector)
    np.testing.assert_array_equal(fit(whole(half_red()), preprocessing), fit(whole(half_red()), PREPROCESSING))


def test_the_detector_is_a_part_of_the_model(detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_encoders(tmp_path, seed=1)
    options = ImageTwoTowerOptions(image=f"local-dir:{tmp_path / 'image'}", crop="region", detector=str(detector))
    model = begin_training(options, TextOptions(), [], seed=1).model
    card = save_model(tmp_path / "model", model)
    assert "detector/card.json" in card.files
    assert type(card.preprocessing).__name__ == "Preprocessing"
    loaded = load_matcher(tmp_path / "model").model
    assert isinstance(loaded.parts.preprocessing, RegionPreprocessing)
    assert loaded.parts.preprocessing.detector == model.parts.preprocessing.detector  # type: ignore[union-attr] # one, too
    assert loaded.parts.preprocessing.target[0] > loaded.parts.preprocessing.resized[0]

    finding(monkeypatch, Region((100.0, 0.0, 200.0, 100.0), "dress", 0.9))
    for name, image in (("half", half_red()), ("red", half_red().crop((90, 0, 200, 100)))):
        image.save(tmp_path / f"{name}.png")
    items = [Item(name, picture=(tmp_path / f"{name}.png").as_uri()) for name in ("half", "red")]
    scorer = PairScorer(tmp_path / "model", precision="float32")
    with PictureDoor(get_settings().with_image_roots((tmp_path,))) as door:
        (half, _), failed = gather_vectors(scorer, items, door)
    assert not failed
    expected = fit(whole(half_red().crop((90, 0, 200, 100))), model.parts.preprocessing.whole)  # type: ignore[union-attr]
    with torch.no_grad():
        vector = model.network.encode(  # type: ignore[operator, union-attr] # of two towers
            scorer_batch(model, expected)
        )[0]
    np.testing.assert_allclose(half, vector, atol=1e-4)


def scorer_batch(model: Any, pixels: np.ndarray) -> Any:
    return model.reader.batch(1, np.arange(1), torch.from_numpy(pixels[None]))


def test_what_is_no_detector(tmp_path: Path) -> None:
    options = ImageTwoTowerOptions(crop="region", detector=str(tmp_path))
    with pytest.raises(UserError, match=r"holds no card\.json"):
        fetch_pictures(options.model_copy(update={"image": "wheel:efficientnet-lite0"}))
    with pytest.raises(UserError, match=r"model\.detector: a/b is no folder"):
        fetch_pictures(options.model_copy(update={"detector": "a/b"}))
    with pytest.raises(UserError, match=r"model\.detector finds nothing for whole pictures"):
        fetch_pictures(options.model_copy(update={"crop": "whole"}))
