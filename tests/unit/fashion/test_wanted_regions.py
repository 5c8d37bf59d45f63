"""Which part of a picture gets a vector, and how it is cut out; all by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shopvision.fashion.composition.found import FoundRegion
from shopvision.fashion.composition.policy import CropPolicy, crop_box
from shopvision.fashion.composition.wanted import class_of, wanted_regions

SIZE = (300, 400)
CLASSES = {"Men": "top", "Men/Shoes": "shoes", "Women/Bags": "bag"}
GARMENTS = (
    FoundRegion((20, 20, 120, 220), "top", 0.9),  # 20,000 px
    FoundRegion((10, 300, 60, 380), "shoes", 0.8),  # 4,000 px
    FoundRegion((70, 300, 130, 380), "shoes", 0.7),  # 4,800 px
    FoundRegion((150, 150, 290, 390), "bag", 0.6),  # 33,600 px
    FoundRegion((0, 0, 300, 400), "dress", 0.3),
    FoundRegion((200, 10, 230, 90), "hat", 0.55),  # 30 px wide
)


@pytest.mark.parametrize(
    ("crop", "category", "expected"),
    [
        ("whole", "Men/Shoes", (0,)),
        ("main", "Men/Shoes", (3,)),  # the larger shoe
        ("main", "Men/Shoes/Boots", (3,)),
        ("main", "Men/Shirts", (1,)),
        ("main", "Women/Bags", (4,)),
        ("main", "Women", (4,)),  # no class: the largest that is sure enough
        ("main", "Men/Shoestrings", (1,)),  # whole parts of the path
        ("main", None, (4,)),
        ("all", "Men/Shoes", (1, 2, 3, 4)),
    ],
)
def test_policies(crop: Any, category: str | None, expected: tuple[int, ...]) -> None:
    assert wanted_regions(CropPolicy(crop=crop), CLASSES, GARMENTS, SIZE, category) == expected


def test_a_class_that_was_not_found_leaves_the_largest_garment() -> None:
    classes = {"Hats": "hat"}  # the only one is too narrow
    assert wanted_regions(CropPolicy(), classes, GARMENTS, SIZE, "Hats") == (4,)
    assert wanted_regions(CropPolicy(smallest_side=30), classes, GARMENTS, SIZE, "Hats") == (6,)


@pytest.mark.parametrize("crop", ["main", "all"])
def test_without_a_garment_the_whole_picture_counts(crop: Any) -> None:
    assert wanted_regions(CropPolicy(crop=crop), CLASSES, (), SIZE, "Men") == (0,)
    assert wanted_regions(CropPolicy(crop=crop, score=0.95), CLASSES, GARMENTS, SIZE, "Men") == (0,)
    assert wanted_regions(CropPolicy(crop=crop, smallest_side=200), CLASSES, GARMENTS, SIZE, "Men") == (0,)


def test_only_what_lies_within_the_picture_counts() -> None:
    beyond = FoundRegion((280, 0, 380, 400), "dress", 0.9)
    assert wanted_regions(CropPolicy(crop="all"), {}, (beyond,), SIZE, None) == (0,)
    assert wanted_regions(CropPolicy(crop="all", smallest_side=20), {}, (beyond,), SIZE, None) == (1,)


def test_of_equal_garments_the_surer_one_is_meant() -> None:
    twins = (FoundRegion((0, 0, 50, 50), "bag", 0.8), FoundRegion((60, 0, 110, 50), "bag", 0.7))
    assert wanted_regions(CropPolicy(), {}, twins, SIZE, None) == (1,)


@pytest.mark.parametrize(
    ("category", "expected"),
    [("Men/Shoes/Boots", "shoes"), ("Men", "top"), ("Men/Hats", "top"), ("Women", None), ("", None), (None, None)],
)
def test_the_longest_path_decides(category: str | None, expected: str | None) -> None:
    assert class_of(category, CLASSES) == expected


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((10.0, 20.0, 30.0, 60.0), 0.0, (10, 20, 30, 60)),
        ((10.2, 20.7, 30.2, 60.7), 0.0, (10, 20, 31, 61)),  # outwards
        ((100.0, 100.0, 200.0, 300.0), 0.1, (90, 80, 210, 320)),
        ((5.0, 10.0, 295.0, 390.0), 0.5, (0, 0, 300, 400)),  # within the picture
        ((299.5, 399.5, 299.5, 399.5), 0.0, (299, 399, 300, 400)),  # never empty
        ((300.0, 400.0, 320.0, 420.0), 0.0, (299, 399, 300, 400)),
        ((-30.0, -20.0, -10.0, -5.0), 0.0, (0, 0, 1, 1)),
    ],
)
def test_crops(box: tuple[float, float, float, float], margin: float, expected: tuple[int, ...]) -> None:
    assert crop_box(box, SIZE, margin) == expected


@pytest.mark.parametrize(
    "wrong", [{"crop": "half"}, {"margin": -0.1}, {"margin": float("nan")}, {"smallest_side": 0}, {"score": 0.05}]
)
def test_policies_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CropPolicy(**wrong)
