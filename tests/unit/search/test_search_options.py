"""What a search is asked for is checked before it begins; which parts of a photo it takes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from shopvision.errors import ItemError, UserError
from shopvision.fashion.composition.policy import MOST_REGIONS
from shopvision.fashion.detection.regions import Region
from shopvision.search.garments import choose_parts
from shopvision.search.notes import item_filter, item_notes
from shopvision.search.options import GarmentChoice, SearchOptions, as_box

SIZE = (200, 100)
TOP = Region((10.0, 10.0, 60.0, 50.0), "top", 0.9)
SHOE = Region((20.0, 70.0, 50.0, 95.0), "shoes", 0.8)
OTHER_SHOE = Region((60.0, 70.0, 90.0, 95.0), "shoes", 0.4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"nearly_same": 0.0}, "above 0 and up to 1, not 0"),
        ({"nearly_same": float("nan")}, "above 0 and up to 1, not nan"),
        ({"colour": 1.5}, "between 0 and 1, not 1.5"),
        ({"colour": float("nan")}, "between 0 and 1, not nan"),
        ({"collapse": ""}, "Name the key"),
        ({"brands": ("Acme", " ")}, "A brand has no name"),
        ({"price_from": Decimal(20), "price_to": Decimal(10)}, "Prices from 20 to 10"),
        ({"price_to": Decimal(-1)}, "Prices from None to -1"),
        ({"price_from": Decimal("NaN")}, "Prices from NaN"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchOptions(**wrong)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1;2;3;4", "1,2,0,4", "1,2,3,-4", "nan,0,1,1"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=r"write x,y,w,h in pixels"):
        as_box(text)


def test_a_box_is_read_by_its_size() -> None:
    assert as_box("10, 20.5,30,40") == (10.0, 20.5, 40.0, 60.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"number": 0}, "numbered from 1 on"),
        ({"number": 1, "box": (0.0, 0.0, 5.0, 5.0)}, "not by both"),
        ({"box": (5.0, 0.0, 5.0, 9.0)}, "has no area"),
        ({"box": (0.0, 0.0, float("nan"), 9.0)}, "has no area"),
    ],
)
def test_choices_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GarmentChoice(**wrong)


def chosen(found: Any, **choice: Any) -> tuple[list[int], list[str]]:
    parts, notes = choose_parts(SIZE, found, GarmentChoice(**choice))
    return [part.number for part in parts], notes


def test_garments_are_numbered_as_the_detector_gives_them() -> None:
    found = [TOP, SHOE, OTHER_SHOE]
    assert chosen(found) == ([1, 2, 3], [])
    assert chosen(found, number=2) == ([2], [])
    assert chosen(found, label="shoes") == ([2, 3], [])
    assert chosen(found, label="bag") == ([], ["No bag was found, but top, shoes."])
    parts, _ = choose_parts(SIZE, found, GarmentChoice())
    assert (parts[1].box, parts[1].label, parts[1].score, parts[1].is_whole) == (SHOE.box, "shoes", 0.8, False)


def test_of_a_crowd_the_best_are_searched_with() -> None:
    assert chosen([SHOE] * 300) == (list(range(1, MOST_REGIONS + 1)), [])


@pytest.mark.parametrize(("found", "message"), [([TOP], "one was found"), ([TOP, SHOE], "2 were"), ([], "none was")])
def test_a_number_that_there_is_not(found: list[Region], message: str) -> None:
    with pytest.raises(ItemError, match=f"no garment 3: {message}") as raised:
        chosen(found, number=3)
    assert raised.value.code == "no_such_garment"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], "No garment was found."),
        (None, "No model serves as fashion_detector."),
        (ItemError("bad_boxes", "The detector gives this picture no finite boxes."), "no finite boxes."),
    ],
)
def test_the_whole_photo_serves_where_nothing_is_found(found: Any, why: str) -> None:
    (part,), (note,) = choose_parts(SIZE, found, GarmentChoice())
    assert (part.number, part.box, part.label, part.is_whole) == (0, (0.0, 0.0, 200.0, 100.0), None, True)
    assert note.endswith(f"{why} The whole photo was searched with.")


def test_a_given_box_is_cut_at_the_edges_and_refused_outside() -> None:
    (part,), notes = choose_parts(SIZE, None, GarmentChoice(box=(-5.0, 50.0, 30.0, 150.0), label="shoes"))
    assert (part.box, part.label, part.score, notes) == ((0.0, 50.0, 30.0, 100.0), "shoes", None, [])
    with pytest.raises(ItemError, match="lies outside the photo of 200 x 100 pixels") as raised:
        choose_parts(SIZE, None, GarmentChoice(box=(200.0, 0.0, 250.0, 20.0)))
    assert raised.value.code == "empty_region"


def test_a_filter_reads_as_a_sentence() -> None:
    options = SearchOptions(
        category="Men", brands=("Acme", "Acme ", "Bolt"), price_from=Decimal("9.5"), price_to=Decimal(20), by_class=True
    )
    assert str(item_filter(options)) == "category Men, brand Acme or Bolt, price from 9.5, price up to 20"
    named = item_filter(options, "shoes", {"Men/Shoes": "shoes"})
    assert "class shoes" in str(named)
    assert item_filter(options, "shoes", {}) == item_filter(options)
    assert item_filter(SearchOptions()).is_empty
    assert item_notes([], item_filter(options), options) == (f"No item fits: {item_filter(options)}.",)
