"""Topics from rows and JSON: what is empty, what is refused, and in which words."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.selection.topic import SLOTS, Topic


def test_the_slots_have_the_published_order() -> None:
    assert SLOTS == ("name", "desc", "date", "cat1", "cat2", "cat3", "cat4", "kwds")


def test_missing_none_and_nan_are_empty() -> None:
    values = {"name": " 여름 원피스 ", "desc": None, "cat1": float("nan"), "cat2": np.float32("nan"), "kwds": "a, b"}
    assert Topic.from_mapping(values) == Topic("여름 원피스", kwds="a, b")
    assert Topic.from_mapping({}) == Topic("")


def test_keywords_may_be_a_list_and_dates_may_be_dates() -> None:
    topic = Topic.from_mapping({"name": "x", "kwds": ["linen", "trousers"], "date": dt.date(2021, 8, 30)})
    assert topic == Topic("x", kwds="linen,trousers", date="2021-08-30")
    assert Topic.from_mapping({"date": dt.datetime(987, 8, 30, 12, tzinfo=dt.UTC)}).date == "0987-08-30"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"title": "x"}, "A topic has no slot 'title'. The slots are name, desc, date, cat1, cat2, cat3, cat4, kwds."),
        ({"name": 7}, "The topic's slot 'name' must be a text, not 7: put it in quotes."),
        ({"cat2": ["a"]}, "The topic's slot 'cat2' must be a text, not ['a']: put it in quotes."),
        ({"kwds": {"a": 1}}, "The topic's slot 'kwds' must be a text or a list of texts, not {'a': 1}"),
        ({"kwds": ["a", 3]}, "The topic's slot 'kwds' must be a text or a list of texts, not ['a', 3]"),
    ],
)
def test_wrong_values_are_one_clear_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Topic.from_mapping(values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("date", ["30.08.2021", "20210830", "2021-W35-1", "2021-13-01", "2021-02-29", "2021-8-3", "x"])
def test_a_date_is_a_day_of_the_calendar(date: str) -> None:
    with pytest.raises(UserError) as caught:
        Topic("Sale", date=date)
    assert str(caught.value) == f"The date '{date}' of 'Sale' is no day: write YYYY-MM-DD, or leave it empty."
