"""Fashionpedia and ModaNet onto 7 and 12 classes: every rule, and the tables of the reference."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shopvision.errors import UserError
from shopvision.fashion.detection.coco import CocoFile, read_boxes
from shopvision.fashion.detection.conversion import (
    class_mapping,
    convert,
    has_impossible_box,
    has_no_garment,
    reason_to_drop,
    shows_several_people,
)
from tests.conftest import Run

SEVEN = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")
TWELVE = (
    "bag", "belt", "bottom", "dress", "eyewear", "glove", "hat", "jumpsuit", "outer", "shoes", "top", "watch",
)  # fmt: skip
FASHIONPEDIA = {
    "top": ["shirt, blouse", "top, t-shirt, sweatshirt", "sweater"],
    "outer": ["cardigan", "jacket", "coat", "vest", "cape"],
    "bottom": ["pants", "shorts", "skirt", "tights, stockings"],
    "dress": ["dress"], "jumpsuit": ["jumpsuit"], "glove": ["glove"], "watch": ["watch"], "belt": ["belt"],
    "shoes": ["shoe"], "hat": ["hat"], "bag": ["bag, wallet"],
}  # fmt: skip
MODANET = {
    "bag": ["bag"], "belt": ["belt"], "shoes": ["boots", "footwear"], "outer": ["outer"], "dress": ["dress"],
    "eyewear": ["sunglasses"], "bottom": ["pants", "shorts", "skirt"], "top": ["top"], "hat": ["headwear"],
}  # fmt: skip
GOOD = (1.0, 2.0, 30.0, 40.0)


def by_class(mapping: dict[str, str | None]) -> dict[str, set[str]]:
    return {name: {one for one, to in mapping.items() if to == name} for name in {to for to in mapping.values() if to}}


def test_the_mappings_are_those_of_the_reference() -> None:
    twelve, seven = class_mapping("fashionpedia", 12), class_mapping("fashionpedia", 7)
    assert (twelve.classes, seven.classes) == (TWELVE, SEVEN)
    assert by_class(dict(twelve.mapping)) == {name: set(names) for name, names in FASHIONPEDIA.items()}
    assert by_class(dict(seven.mapping)) == {
        name: set(names) - {"sweater"} for name, names in FASHIONPEDIA.items() if name in SEVEN
    }
    assert len(twelve.mapping) == len(seven.mapping) == 46
    twelve, seven = class_mapping("modanet", 12), class_mapping("modanet", 7)
    assert (twelve.classes, seven.classes) == (TWELVE, SEVEN)
    assert by_class(dict(twelve.mapping)) == {name: set(names) for name, names in MODANET.items()}
    assert by_class(dict(seven.mapping)) == {name: set(names) for name, names in MODANET.items() if name in SEVEN}
    assert twelve.mapping["scarf/tie"] is None
    with pytest.raises(
        UserError, match="no mapping of 'deepfashion' onto 7 classes: there is fashionpedia and modanet"
    ):
        class_mapping("deepfashion", 7)
    with pytest.raises(UserError, match="onto 9 classes"):
        class_mapping("modanet", 9)


def test_a_picture_without_a_garment_is_left_out() -> None:
    assert has_no_garment([])
    assert not has_no_garment([GOOD])


@pytest.mark.parametrize(
    "bad",
    [(-0.5, 2, 30, 40), (1, -1, 30, 40), (1, 2, 0, 40), (1, 2, 30, -4), (1, math.nan, 30, 40), (1, 2, math.inf, 40)],
)
def test_one_impossible_box_drops_the_picture(bad: tuple[float, float, float, float]) -> None:
    assert has_impossible_box([GOOD, bad])
    assert not has_impossible_box([GOOD, (0, 0, 1, 1)])


def test_more_than_two_shoes_are_several_people_and_only_in_modanet() -> None:
    assert shows_several_people(["shoes", "top", "shoes", "shoes"])
    assert not shows_several_people(["shoes", "top", "shoes", "top", "top"])
    shoes = ["shoes"] * 3
    assert reason_to_drop([GOOD] * 3, shoes, "modanet") == "several people"
    assert reason_to_drop([GOOD] * 3, shoes, "fashionpedia") is None


def source(*boxes: tuple[int, str, tuple[float, float, float, float]], names: tuple[str, ...]) -> CocoFile:
    """Boxes as (image, category, box) of pictures 1 to 3."""
    values: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 400, "height": 600, "license": 1} for n in (1, 2, 3)],
        "categories": [{"id": n, "name": name, "supercategory": "x"} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": names.index(name), "bbox": box, "segmentation": [[1, 2]]}
            for n, (image, name, box) in enumerate(boxes)
        ],
    }
    return CocoFile.model_validate(values)


def test_a_file_is_converted() -> None:
    file = source(
        (1, "boots", GOOD), (1, "scarf/tie", (-9, 0, 0, 0)), (2, "belt", GOOD), (3, "top", GOOD),
        (3, "bag", (0, 0, 0, 5)),
        names=("bag", "belt", "boots", "scarf/tie", "top"),
    )  # fmt: skip
    result = convert(file, "modanet", 7, where="instances_all.json")
    assert result.images == 3
    assert result.dropped == {"impossible box": 1, "no garment": 1}
    assert [image["file_name"] for image in result.coco["images"]] == ["1.jpg"]
    (box,) = result.coco["annotations"]
    assert (box["category_id"], box["bbox"], box["area"]) == (SEVEN.index("shoes"), list(GOOD), 1200)
    assert [category["name"] for category in result.coco["categories"]] == list(SEVEN)
    twelve = convert(file, "modanet", 12, where="instances_all.json")
    assert [image["id"] for image in twelve.coco["images"]] == [1, 2]


def test_a_category_that_no_mapping_knows_is_named() -> None:
    with pytest.raises(UserError, match=r"all.json: the mapping does not know the category 'kimono', only bag, belt"):
        convert(source(names=("bag", "kimono")), "modanet", 7, where="all.json")


def test_an_annotation_of_nothing_is_named() -> None:
    file = source((9, "bag", GOOD), names=("bag",))
    with pytest.raises(UserError, match="annotation 0 names an image or a category that is not there"):
        convert(file, "modanet", 7, where="all.json")


def test_an_id_that_stands_there_twice_is_named() -> None:
    file = source((1, "bag", GOOD), (2, "bag", GOOD), names=("bag",))
    twice = file.model_copy(update={"annotations": [file.annotations[0], file.annotations[0]]})
    with pytest.raises(UserError, match=r"all.json: annotation 0 stands there twice: give each its own"):
        convert(twice, "modanet", 7, where="all.json")


def test_the_command_writes_a_file_that_the_reader_takes(tmp_path: Path, command_line: Run) -> None:
    file = source((1, "boots", GOOD), (2, "belt", GOOD), (3, "bag", (9, 9, 9, 9)), names=("bag", "belt", "boots"))
    (tmp_path / "all.json").write_text(file.model_dump_json())
    for number in (1, 3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.jpg")
    arguments = ("data", "convert-boxes", tmp_path / "all.json", "--output", tmp_path / "seven.json", "--json")
    status, stdout, stderr = command_line(*arguments, "--source", "modanet")
    assert status == 0, stderr
    assert json.loads(stdout) == {
        "output": str(tmp_path / "seven.json"), "images": 3, "kept": 2, "boxes": 2, "dropped": {"no garment": 1},
    }  # fmt: skip
    data = read_boxes(tmp_path / "seven.json")
    assert data.boxes_by_class() == dict.fromkeys(SEVEN, 0) | {"bag": 1, "shoes": 1}
    folder = ("data", "convert-boxes", tmp_path / "all.json", "--output", tmp_path, "--source", "modanet")
    status, _, stderr = command_line(*folder)
    assert (status, "cannot be written: Is a directory" in " ".join(stderr.split())) == (1, True), stderr
    status, _, stderr = command_line(*arguments, "--source", "deepfashion")
    assert status == 1
    assert "There is no mapping of 'deepfashion'" in stderr
    status, _, stderr = command_line("data", "convert-boxes", tmp_path / "all.json", "--source", "modanet",
                                     "--output", tmp_path / "no" / "seven.json")  # fmt: skip
    assert "there is no such folder" in stderr
