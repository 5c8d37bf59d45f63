"""How long the fashion demo trains, whatever the size of the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shopvision.fashion.detection.coco import DetectionData, LabelledPicture
from shopvision.fashion.encoding.fitting import trained_on
from shopvision.fashion.encoding.train import read_splits
from worker.demo.fashion_folder import FashionFolder
from worker.demo.fashion_models import FEWEST_PAIRS, detector_config, encoder_config


def folder(photos: int) -> FashionFolder:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    pictures = tuple(LabelledPicture(f"file:///{n}.jpg", (8, 8), *none, photo=f"{n}") for n in range(photos))
    data = DetectionData(("top",), pictures)
    items = Path("catalogue/items.jsonl")
    return FashionFolder(Path("boxes.json"), data, items.parent, items, pairs=100, classes={"Tops": "top"})


@pytest.mark.parametrize(("photos", "epochs"), [(0, 30), (100, 30), (500, 6), (760, 4), (100_000, 1)])
def test_a_detector_sees_about_as_many_photos_however_many_there_are(photos: int, epochs: int) -> None:
    assert detector_config(folder(photos), None).train.epochs == epochs
    assert detector_config(folder(photos), 2).train.epochs == 2


@pytest.mark.parametrize(("pictures", "views"), [(0, 4), (725, 4), (2_000, 3), (100_000, 1)])
def test_an_encoder_learns_from_fewer_views_of_more_pictures(pictures: int, views: int) -> None:
    config = encoder_config(folder(1), pictures)
    assert config.train.views == views
    assert config.data.classes == {"Tops": "top"}
    assert config.data.images == "catalogue"


def test_the_fewest_pairs_are_enough_to_learn_from(tmp_path: Path) -> None:
    """Also where they are of few items, whose leading pictures are few."""
    path = tmp_path / "items.jsonl"
    pictures = [[{"file": f"{item}-{view}.jpg"} for view in range(5)] for item in range(FEWEST_PAIRS // 4)]
    items = [{"item_id": str(item), "images": images} for item, images in enumerate(pictures)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    config = encoder_config(replace(folder(1), items=path, catalogue=tmp_path), 5 * len(items))
    train = read_splits(config)["train"]
    assert trained_on(config, train)
    assert len(train.views()) > config.model.dimension
