"""How common attributes are, as a model's card keeps it."""

from __future__ import annotations

import json

import pytest

from shopvision.errors import UserError
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item import Item
from worker.logs import log_warnings_to_stderr

ITEMS = [
    Item("1", category="鞋", attributes={"size": ("41", "42"), "\uff23olour": ("red",)}),
    Item("2", category="鞋", attributes={"Size": ("43",), "Colour": ("red",), "rare": ("x",)}),
    Item("3", category="hats", attributes={"size": ("M",)}),
]


def test_an_item_counts_once_and_keys_seen_once_are_dropped() -> None:
    statistics = CategoryStatistics.fit(ITEMS)
    assert statistics.to_json() == {"鞋": {"colour": 2, "size": 2}}
    assert [statistics.count("鞋", key) for key in ("size", "colour", "rare")] == [2, 2, 0]
    assert statistics.count("hats", "size") == statistics.count("no such", "size") == 0


def test_read_back_from_json() -> None:
    statistics = CategoryStatistics.fit(ITEMS)
    assert CategoryStatistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics


def test_a_card_that_tells_capitals_apart_is_put_together_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    log_warnings_to_stderr()
    statistics = CategoryStatistics.from_json({"鞋": {"Colour": 3, "colour": 2, "size": 4}})
    assert statistics.to_json() == {"鞋": {"colour": 5, "size": 4}}
    assert "train the model again" in capsys.readouterr().err
    CategoryStatistics.from_json(statistics.to_json())
    assert capsys.readouterr().err == ""


def test_order_of_items_changes_nothing() -> None:
    turned = CategoryStatistics.fit(reversed(ITEMS))
    assert json.dumps(turned.to_json()) == json.dumps(CategoryStatistics.fit(ITEMS).to_json())


@pytest.mark.parametrize("values", [{"c": 3}, {"c": {"k": "3"}}, {"c": ["k"]}])
def test_other_json_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="category 'c'"):
        CategoryStatistics.from_json(values)
