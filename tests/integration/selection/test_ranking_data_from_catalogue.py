"""A shop's own plans as training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shopvision.catalogue import upsert_plans
from shopvision.catalogue.importing import PLANS_KIND, Importer, items_kind
from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.source_files import open_source
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.data import RankingData, from_catalogue
from shopvision.selection.clik.train import read_splits
from shopvision.selection.topic import Topic
from tests.integration.meanwhile import right_after

pytestmark = pytest.mark.usefixtures("database")

ITEMS: list[dict[str, Any]] = [
    {
        "item_id": "b", "images": ["b-1.jpg", "b-2.jpg"], "title": "Linen dress",
        "category": "Women/Dresses/Long/Linen/Red",
        "attributes": [{"key": "colour", "value": "white"}, {"key": "fit", "value": "loose"}], "sold": 3,
    },
    {"item_id": "a", "images": ["a.jpg"], "title": "Shirt", "category": "Men", "sold": "12"},
    {"item_id": "c", "images": ["https://cdn.example/c.jpg"], "sold": 0},
    {"item_id": "d", "images": ["gone.jpg"], "sold": 5},
    {"item_id": "e", "images": ["e.jpg"]},
    {"item_id": "unused", "images": ["a.jpg"], "sold": "not a number, but in no plan"},
]  # fmt: skip
PLANS: list[dict[str, Any]] = [
    {
        "plan_id": "summer", "name": "Summer", "desc": "light", "date": "2026-06-01T08:00", "cat1": "Fashion",
        "cat2": "Women", "kwds": ["dress", "linen"], "member_item_ids": ["b", "a", "c", "d", "e", "not arrived"],
    },
    {"plan_id": "men", "name": "For him", "cat1": "Men", "member_item_ids": ["a", "c"]},
    {"plan_id": "empty", "name": "Soon"},
]  # fmt: skip


def load(folder: Path, items: list[dict[str, Any]] = ITEMS, plans: list[dict[str, Any]] = PLANS) -> None:
    for name in ("a.jpg", "b-1.jpg", "e.jpg"):
        (folder / name).write_bytes(b"")
    root = PictureRoot.parse(str(folder))
    for kind, records in ((items_kind(root), items), (PLANS_KIND, plans)):
        file = folder / "records.jsonl"
        file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        with open_source(str(file)) as source:
            assert Importer(kind, source).run().complete


def read(label: str | None = None) -> RankingData:
    with connect() as connection:
        return from_catalogue(connection, label)


def test_a_plan_that_arrives_while_the_data_are_read_is_left_for_the_next_run(tmp_path: Path) -> None:
    load(tmp_path)
    late = {"plan_id": "late", "name": "Late", "member_item_ids": ["a", "b"]}

    def add_plan() -> None:
        with connect() as connection:
            upsert_plans(connection, [late])

    whole = {"fractions": (1, 0, 0), "min_positive": 1, "min_distinct_labels": 1, "min_products": 1}
    config = {"data": {"catalogue": True}, "refine": {**whole, "shared_products": True}}
    with right_after("FROM plans", add_plan):
        data = read_splits(ClikConfig.model_validate(config))["train"]
    assert {exhibition.exhibition_id for exhibition in data.exhibitions} == {"men", "summer"}


def rows(data: RankingData) -> dict[str, list[tuple[str, float]]]:
    return {
        e.exhibition_id: [(data.products.ids[p], float(label)) for p, label in zip(e.products, e.labels, strict=True)]
        for e in data.exhibitions
    }


def test_members_with_a_label_from_the_items(tmp_path: Path) -> None:
    load(tmp_path)
    data = read("sold")
    assert rows(data) == {"men": [("a", 12), ("c", 0)], "summer": [("a", 12), ("b", 3), ("c", 0)]}
    assert [(record.rule, record.rows_before, record.rows_after) for record in data.read_log] == [
        ("members without an item or picture", 8, 7),
        ("rows without a label", 7, 6),
        ("rows without a picture", 6, 5),
    ]
    men, summer = data.exhibitions
    assert (men.members, men.available, summer.members, summer.available) == (2, 2, 6, 4)  # one is gone, one unknown
    assert summer.topic == Topic("Summer", "light", "2026-06-01", "Fashion", "Women", kwds="dress,linen")
    assert (summer.category, men.category) == ("Women", "Men")


def test_items_bring_their_picture_and_their_own_topic(tmp_path: Path) -> None:
    load(tmp_path)
    products = read("sold").products
    assert list(products.ids) == ["a", "b", "c"]
    assert [products.image(i) for i in range(3)] == [
        (tmp_path / "a.jpg").as_uri(), (tmp_path / "b-1.jpg").as_uri(), "https://cdn.example/c.jpg",
    ]  # fmt: skip
    assert products.topic(1) == Topic(
        "Linen dress", cat1="Women", cat2="Dresses", cat3="Long", cat4="Linen/Red", kwds="white,loose"
    )
    assert products.topic(2) == Topic("")


def test_membership_alone(tmp_path: Path) -> None:
    load(tmp_path)
    data = read()
    assert rows(data)["summer"] == [("a", 1), ("b", 1), ("c", 1), ("e", 1)]
    assert data.fingerprint() == read().fingerprint() != read("sold").fingerprint()


def test_what_cannot_be_learnt_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The catalogue has no promotion plan\. Import plans"):
        read()
    load(tmp_path)
    with pytest.raises(UserError, match=r"No item has a value clicks"):
        read("clicks")
    load(tmp_path, items=[{**ITEMS[1], "sold": "a dozen"}])
    with pytest.raises(UserError, match=r"Item a: sold is 'a dozen', which is no number"):
        read("sold")
    load(tmp_path, plans=[{**PLANS[0], "date": "in summer"}])
    with pytest.raises(UserError, match=r"Plan summer: The date 'in summer'"):
        read()
