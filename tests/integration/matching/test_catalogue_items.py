"""Items and reviewed pairs from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from shopvision.catalogue import delete_items
from shopvision.catalogue.importing import Importer, items_kind
from shopvision.catalogue.source_files import open_source
from shopvision.database import connect
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.items.item_files import read_items
from shopvision.matching.groups.reviews import reviewed_pairs
from shopvision.matching.tables import PairReview

ITEMS: list[dict[str, Any]] = [
    {
        "item_id": "a", "images": ["https://cdn.example/1.jpg", "https://cdn.example/2.jpg"], "title": "Dress",
        "brand": "Linea", "category": "Women/Dresses", "price": "49.50", "currency": "EUR", "description": "long",
        "attributes": [{"key": "fit", "value": "loose"}, {"key": "colour", "value": "white"}],
        "sku_attributes": [{"key": "size", "value": "S"}, {"key": "fit", "value": "a line"}], "sold": 3,
    },
    {"item_id": "b", "images": ["https://cdn.example/b.jpg"]},
    {
        "item_id": "C", "images": ["https://cdn.example/c.jpg"], "price": 100, "width": 12.5,
        "colours": ["red", "blue"], "material": "oak", "style_id": "tells", "updated_at": "2026-01-01T00:00:00Z",
        "name": "", "item_pvs": "broken",
    },
]  # fmt: skip
DRESS = Item(
    "a",
    title="Dress",
    category="Women/Dresses",
    brand="Linea",
    price="49.5",
    description="long",
    attributes={"fit": ("a line", "loose"), "colour": ("white",), "size": ("S",), "currency": ("EUR",)},
    picture="https://cdn.example/1.jpg",
)


@pytest.fixture
def shop(database: None, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    with open_source(str(file)) as source:
        assert Importer(items_kind(None), source).run().complete


@pytest.mark.usefixtures("shop")
def test_items_in_the_order_asked_for() -> None:
    with connect() as connection:
        items = items_from_catalogue(connection, ["C", "gone", "a", "b", "a"])
    assert list(items) == ["C", "a", "b"]
    assert items["a"] == DRESS
    assert list(items["a"].attributes) == ["fit", "colour", "size", "currency"]
    assert items["b"] == Item("b", picture="https://cdn.example/b.jpg")
    assert items["C"].price == "100"
    assert items["C"].attributes == {}  # a counter of the stock must not score pairs anew


@pytest.mark.usefixtures("shop")
def test_more_items_than_one_query_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shopvision.items.catalogue_items.IDS_A_QUERY", 2)
    with connect() as connection:
        assert list(items_from_catalogue(connection, ["b", "a", "C"])) == ["b", "a", "C"]
        assert items_from_catalogue(connection, []) == {}


@pytest.mark.usefixtures("shop")
def test_item_of_the_catalogue_is_that_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "known.jsonl"
    file.write_text("\n".join(json.dumps(item | {"item_pvs": ""}) for item in ITEMS), encoding="utf-8")
    from_file = read_items(file)
    with connect() as connection:
        items = items_from_catalogue(connection, list(from_file))
    assert {item_id: item.content_hash() for item_id, item in items.items()} == {
        item_id: item.content_hash() for item_id, item in from_file.items()
    }


@pytest.mark.usefixtures("shop")
def test_reviews_are_labelled_pairs() -> None:
    reviews: list[Mapping[str, str]] = [
        {"left_item_id": "a", "right_item_id": "b", "verdict": "same"},
        {"left_item_id": "C", "right_item_id": "a", "verdict": "different"},
    ]
    with connect() as connection:
        assert len(reviewed_pairs(connection)) == 0
        connection.execute(insert(PairReview), reviews)
        table = reviewed_pairs(connection)
    ids = [item.item_id for item in table.items]
    pairs = zip(table.left.tolist(), table.right.tolist(), table.labels.tolist(), strict=True)
    assert {(ids[left], ids[right], label) for left, right, label in pairs} == {("a", "b", 1), ("C", "a", 0)}
    assert DRESS in table.items
    with connect() as connection:
        delete_items(connection, ["C"])
        left = reviewed_pairs(connection)
    assert ({item.item_id for item in left.items}, left.labels.tolist()) == ({"a", "b"}, [1])
