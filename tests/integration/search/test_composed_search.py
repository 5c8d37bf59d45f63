"""Searching an index of garments that a composed encoder found in the catalogue's pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text, update

from shopvision.catalogue import upsert_items
from shopvision.database import connect
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.composition.colour import to_lab
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.composition.predict import ComposedEncoder
from shopvision.fashion.tables import PictureRegion
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.search import GarmentChoice, SearchOptions, VisualSearch
from tests.garment_pictures import BAG, COLOURS, SHOES, Finder, MeanColour, composed, direction, picture
from tests.integration.index.catalogue import embed, make_model
from tests.integration.search.world import let_serve

CLASSES = {"Shoes": "shoes", "Bags": "bag"}
SHOE_BLUE = to_lab(np.array([COLOURS["shoes"]], np.uint8))[0]
# item -> category, and for each region: its vector's colour, and how far its own colour is from the photographed one.
ITEMS = {
    "deep": ("Shoes/Boots", [((0, 60, 220), (0.0, 0.0, 0.0))]),
    "pale": ("Shoes/Boots", [((0, 0, 220), (0.0, 30.0, 40.0))]),
    "print": ("Bags", [((200, 0, 0), (1.0, 0.0, 0.0)), ((0, 20, 220), None)]),
}


@pytest.fixture
def search(model: Any, reader: IndexReader) -> VisualSearch:
    """Garments of three items; the bag's picture shows something blue, too, of which no colour is known."""
    let_serve("fashion_detector", "finder")
    with connect() as connection:
        upsert_items(
            connection,
            [
                {"item_id": key, "category": category, "images": [f"file:///{key}.png"]}
                for key, (category, _) in ITEMS.items()
            ],
        )
        images = {row.item_id: row.image_id for row in connection.execute(text("SELECT * FROM item_images"))}
        detector = connection.scalar(text("SELECT model_version_id FROM model_versions WHERE name = 'finder'"))
        rows: list[dict[str, Any]] = []
        for key, (_, regions) in ITEMS.items():
            common = {"detector_version_id": detector, "image_id": images[key]}
            common["image_sha256"] = b"sha of %d" % images[key]
            whole = {"region": 0, "box": [0, 0, 90, 90], "label": None, "score": None, "colour": None}
            rows.append(common | whole)
            for number, (_, shift) in enumerate(regions, 1):
                colour = None if shift is None else (SHOE_BLUE + shift).tolist()
                garment = {"region": number, "box": [0, 0, 9, 9], "label": "shoes", "score": 0.9, "colour": colour}
                rows.append(common | garment)
        connection.execute(insert(PictureRegion), rows)
    for key, (_, regions) in ITEMS.items():
        for number, (colour, _) in enumerate(regions, 1):
            embed(model, [images[key]], direction(*colour)[None], region=number)
    publish("catalogue", model)
    return VisualSearch(reader, lambda spec: {"toy:1": composed(classes=CLASSES)}[spec])


PHOTO = picture(bag=BAG, shoes=SHOES)


def shoes(search: VisualSearch, **options: Any) -> Any:
    (garment,) = search.by_photo(
        PHOTO, SearchOptions(nearly_same=1.0, **options), GarmentChoice(label="shoes")
    ).garments
    return garment


def test_its_own_detector_finds_the_garments(search: VisualSearch) -> None:
    """The one that serves is not even loaded."""
    result = search.by_photo(PHOTO, SearchOptions(k=1))
    assert (result.detector, result.notes) == ("finder:1", ())
    assert [(one.label, one.box, one.items[0].item_id) for one in result.garments] == [
        ("bag", tuple(map(float, BAG)), "print"), ("shoes", tuple(map(float, SHOES)), "pale"),
    ]  # fmt: skip


def test_an_item_comes_with_the_region_that_is_nearest(search: VisualSearch) -> None:
    items = {one.item_id: one for one in shoes(search).items}
    assert {key: one.region for key, one in items.items()} == {"pale": 1, "print": 2, "deep": 1}
    assert [*items] == ["pale", "print", "deep"]
    assert items["deep"].score == pytest.approx(220 / np.hypot(60, 220), abs=2e-3)
    assert [one.colour_difference for one in items.values()] == [None] * 3


def test_the_class_prefers_its_categories(search: VisualSearch) -> None:
    found = shoes(search, by_class=True)
    assert [(one.item_id, one.fits) for one in found.items] == [("pale", True), ("deep", True), ("print", False)]
    assert [one.item_id for one in shoes(search, by_class=True, soft=False).items] == ["pale", "deep"]


def test_the_photographed_colour_has_a_say(search: VisualSearch) -> None:
    """Half of it: deep 0.48 + 0.5, pale 0.5 + 0.25, print, of which nothing is known, 0.5 + 0.375."""
    found = shoes(search, colour=0.5)
    assert [one.item_id for one in found.items] == ["deep", "print", "pale"]
    assert [one.colour_difference for one in found.items] == [
        pytest.approx(0, abs=0.01), None, pytest.approx(50, abs=0.01)
    ]  # fmt: skip


def test_the_colour_of_newer_bytes_is_not_that_of_the_vector(search: VisualSearch) -> None:
    """Another encoder with this detector has looked at the picture since; this one's vector is of the former bytes."""
    with connect() as connection:
        (image_id,) = connection.scalars(text("SELECT image_id FROM item_images WHERE item_id = 'deep'"))
        connection.execute(
            update(PictureRegion).where(PictureRegion.image_id == image_id).values(image_sha256=b"newer bytes")
        )
    assert {one.item_id: one.colour_difference for one in shoes(search, colour=0.5).items}["deep"] is None


def test_an_index_of_whole_pictures_has_no_colours(search: VisualSearch, reader: IndexReader) -> None:
    whole = VisualSearch(reader, lambda spec: {"toy:1": composed(crop="whole")}[spec])
    (note,) = whole.by_photo(PHOTO, SearchOptions(colour=0.5)).notes
    assert note == "toy:1 keeps no regions of the catalogue's pictures: colours do not count."


def test_an_item_by_any_of_its_garments(search: VisualSearch) -> None:
    assert [one.item_id for one in search.by_item("print", SearchOptions(nearly_same=1.0)).items] == ["pale", "deep"]


def test_scores_of_two_encoders_are_told_apart(search: VisualSearch, reader: IndexReader) -> None:
    """Bags have an encoder of their own. A box is of no class until one is named with it."""
    arguments = CompositionArguments(
        detector="finder:1",
        encoder="eye:1",
        by_class={"bag": "bags:1"},
        policy=CropPolicy(margin=0.0, smallest_side=16),
    )
    routed: Any = ComposedEncoder(Finder(), MeanColour(), {"bag": MeanColour()}, arguments)
    by_class = make_model("by-class")
    with connect() as connection:
        images = {row.item_id: row.image_id for row in connection.execute(text("SELECT * FROM item_images"))}
    for key, (_, regions) in ITEMS.items():
        for number, (colour, _) in enumerate(regions, 1):
            vector = direction(*colour).astype(np.float32)[None]
            extended = arguments.routes.extend(vector, [arguments.routes.of("bag" if key == "print" else "shoes")])
            embed(by_class, [images[key]], extended.astype(np.float16), region=number)
    publish("catalogue", by_class)
    searching = VisualSearch(reader, lambda spec: {by_class.spec: routed}[spec])
    box = tuple(map(float, BAG))
    options = SearchOptions(nearly_same=1.0)
    unnamed, named = (
        searching.by_photo(PHOTO, options, GarmentChoice(box=box, label=label)).garments[0] for label in (None, "bag")
    )
    assert [one.is_comparable for one in unnamed.items] == [True, True, False]
    assert unnamed.items[2].item_id == "print"
    (note,) = unnamed.notes
    assert note.startswith("1 of these items cannot be compared: encoders of other classes made their vectors.")
    assert [one.is_comparable for one in named.items] == [True, False, False]
    assert (named.items[0].item_id, named.items[0].score) == ("print", pytest.approx(1, abs=2e-3))
    assert named.notes[0].startswith("2 of these items cannot be compared")
