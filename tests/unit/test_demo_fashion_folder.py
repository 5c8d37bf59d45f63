"""What the fashion demo takes for its folder, and which class of garment it sees in a category's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shopvision.errors import UserError
from worker.demo.fashion_folder import look_into
from worker.demo.garment_classes import classes_by_category

SEVEN = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("Women/Tops/Jackets", "outer"),
        ("Women/Tops/Bras & Tanks", "top"),
        ("Men/Tops/Hoodies & Sweatshirts", "top"),
        ("Men/T-Shirts", "top"),
        ("Men/Dress Shirts", "top"),
        ("Women/Shirt Dresses", "dress"),
        ("Women/Tops/Short Sleeve", "top"),
        ("Men/Bottoms/Shorts", "bottom"),
        ("Women/Tops/Spring Classics", "top"),
        ("Footwear/Flip Flops", "shoes"),
        ("Gear/Bags", "bag"),
        ("Accessories/Caps", "hat"),
        ("Gear/Watches", None),
        ("Damen/Hosen", None),
        ("", None),
    ],
)
def test_a_category_is_of_the_class_that_its_last_words_name(category: str, expected: str | None) -> None:
    assert classes_by_category([category], SEVEN).get(category) == expected


def test_only_known_classes_are_given_and_own_ones_are_found_by_their_name() -> None:
    assert classes_by_category(["Women/Tops/Jackets", "Gear/Watches"], ("top", "watch")) == {
        "Women/Tops/Jackets": "top",
        "Gear/Watches": "watch",
    }
    assert classes_by_category(["Damen/Röcke", "Damen/Blusen"], ("rock", "röcke")) == {"Damen/Röcke": "röcke"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "catalogue").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "photos" / "images" / "a.jpg")
    (tmp_path / "photos" / "boxes.json").write_text(json.dumps(coco()))
    (tmp_path / "catalogue" / "items.jsonl").write_text('{"item_id": "1", "images": ["1.jpg", "2.jpg"]}\n')
    return tmp_path


def coco() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "top"}],
    }


def test_a_whole_folder(folder: Path) -> None:
    found = look_into(folder)
    assert found.boxes == folder / "photos" / "boxes.json"
    assert found.items == folder / "catalogue" / "items.jsonl"
    assert found.data.classes == ("top",)
    assert found.pairs == 1
    assert found.classes is None
    (folder / "categories.json").write_text('{"Women/Tops": "top"}')
    assert look_into(folder).classes == {"Women/Tops": "top"}


def test_links_lead_elsewhere_and_the_only_file_of_boxes_may_have_another_name(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (folder / "photos" / "boxes.json").rename(folder / "photos" / "train_7.json")
    (folder / "photos" / "mapping.json").write_text('{"shirt": "top"}')
    (folder / "photos" / "broken.json").write_text("{")
    for name in ("photos", "catalogue"):
        (linked / name).symlink_to(folder / name)
    assert look_into(linked).boxes == folder / "photos" / "train_7.json"


def test_a_link_within_the_photos_that_leads_out_of_them_is_refused(folder: Path) -> None:
    """Before anything is started: the training may read the folder of the boxes, and nothing that lies elsewhere."""
    images = folder / "photos" / "images"
    images.rename(folder / "elsewhere")
    images.symlink_to(folder / "elsewhere")
    with pytest.raises(UserError, match=r"A link leads out of .*/photos to .*/elsewhere/a\.jpg: put"):
        look_into(folder)
    images.unlink()
    (folder / "elsewhere").rename(folder / "photos" / "other")
    images.symlink_to(folder / "photos" / "other")
    assert look_into(folder).data.pictures


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("gone")), "There is no folder .* photos/boxes.json"),
        (lambda folder: (folder / "catalogue").rename(folder / "items"), "has no folder catalogue: .*items.jsonl"),
        (lambda folder: (folder / "photos").rename(folder / "pictures"), "has no folder photos: .*boxes.json"),
        (lambda folder: (folder / "catalogue" / "items.jsonl").unlink(), "has no table of items: put items.jsonl"),
        (lambda folder: (folder / "photos" / "boxes.json").unlink(), "has no boxes.json: .*COCO JSON"),
        (lambda folder: (folder / "photos" / "images" / "a.jpg").unlink(), "the picture a.jpg is not in"),
        (lambda folder: (folder / "categories.json").write_text("{"), "categories.json is no JSON"),
        (lambda folder: (folder / "categories.json").write_text("[]"), "must map category paths"),
        (lambda folder: (folder / "categories.json").write_text('{"A": 1}'), "must be a name"),
        (
            lambda folder: (folder / "categories.json").write_text('{"A": "sock"}'),
            "'sock' .the category A.*: it knows top",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(folder: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("photos", "catalogue"):
        (folder / name).rename(inner / name)
    spoil(inner)
    with pytest.raises(UserError, match=message) as told:
        look_into(inner)
    assert "\n" not in str(told.value)


def test_several_files_of_boxes_are_listed(folder: Path) -> None:
    (folder / "photos" / "boxes.json").unlink()
    for name in ("train.json", "test.json"):
        (folder / "photos" / name).write_text(json.dumps(coco()))
    with pytest.raises(UserError, match=r"several files of boxes \(test.json, train.json\): call the right one"):
        look_into(folder)
