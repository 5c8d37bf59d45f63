"""Triples of a catalogue and of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shopvision.errors import UserError
from shopvision.graph.triples import Triple, catalogue_triples, read_triples
from shopvision.items.item import Item

SHOE = Item(
    "1", "Runner  3", "Men/Shoes", "Acme", attributes={"Colour": ("blue", "red"), "Fit": ("",)}, picture="file:///1.jpg"
)


def test_what_items_say_of_themselves() -> None:
    assert list(catalogue_triples([SHOE, SHOE, Item("2", brand="Acme"), Item("3", "Cap")])) == [
        Triple("Runner 3", "has_category", "Shoes"),
        Triple("Runner 3", "of_brand", "Acme"),
        Triple("Runner 3", "has_attribute", "Colour blue"),
        Triple("Runner 3", "has_attribute", "Colour red"),
        Triple("Runner 3", "has_picture", "file:///1.jpg"),
        Triple("Shoes", "has_title", "Runner 3"),
    ]
    kinds = {triple.relation: triple.tail_kind for triple in catalogue_triples([SHOE])}
    assert kinds.pop("has_picture") == "picture"
    assert set(kinds.values()) == {"text"}


def test_triples_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.jsonl"
    rows = [
        {"head": "Putuo", "relation": "has_category", "tail": "temple"},
        {"head": "Putuo", "relation": "has_picture", "tail": "a.jpg"},
        {"head": "Putuo", "relation": "has_category", "tail": "temple"},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    picture = (tmp_path / "a.jpg").as_uri()
    assert read_triples(path) == [Triple("Putuo", "has_category", "temple"), Triple("Putuo", "has_picture", picture)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"head": "Putuo", "tail": "temple"}, "line 1: no relation; every triple has head, relation, tail"),
        ({"head": "Putuo", "relation": "near", "tail": "sea"}, "line 1: no relation 'near'; there are has_category"),
        ({"head": " ", "relation": "of_brand", "tail": "sea"}, "line 1: no head"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: dict[str, str], message: str) -> None:
    path = tmp_path / "graph.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        read_triples(path)
