"""Topics from rows and JSON: what is empty, what is refused, and in which words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Self

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
    ("written", "utc", "seoul"),
    [
        ("2026-05-31T23:30:00Z", "2026-05-31", "2026-06-01"),
        ("2026-06-01 01:00+09:00", "2026-05-31", "2026-06-01"),
        (dt.datetime(2026, 5, 31, 15, tzinfo=dt.UTC), "2026-05-31", "2026-06-01"),
        ("2026-05-31T23:30", "2026-05-31", "2026-05-31"),  # the shop's own clock
        (dt.datetime(2026, 5, 31, 23), "2026-05-31", "2026-05-31"),  # noqa: DTZ001 - likewise
        ("2026-05-31", "2026-05-31", "2026-05-31"),
    ],
)
def test_a_moment_is_a_day_of_the_shop(
    set_environment: Callable[..., None], written: object, utc: str, seoul: str
) -> None:
    assert Topic.from_mapping({"date": written}).date == utc
    set_environment(SHOPVISION_TIMEZONE="Asia/Seoul")
    assert Topic.from_mapping({"date": written}).date == seoul


def test_no_date_is_no_season_unless_a_day_is_given(
    set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return cls(2026, 12, 31, 18, tzinfo=dt.UTC).astimezone(tz)

    monkeypatch.setattr(dt, "datetime", Clock)
    set_environment(SHOPVISION_TIMEZONE="Asia/Seoul")
    topic = Topic("Sale")
    assert topic.dated(None) == topic.dated("") == topic
    assert topic.dated("today").date == "2027-01-01"
    assert topic.dated("2026-06-01").date == "2026-06-01"
    assert Topic("Sale", date="2026-08-05").dated("today").date == "2026-08-05"
    with pytest.raises(UserError, match="The date 'tomorrow' of 'Sale' is no day"):
        topic.dated("tomorrow")


@pytest.mark.parametrize("written", ["2026-05-31 (Sunday)", "9999-12-31T23:00-05:00", "0001-01-01T01:00+09:00"])
def test_what_is_no_moment_is_refused(set_environment: Callable[..., None], written: str) -> None:
    set_environment(SHOPVISION_TIMEZONE="Pacific/Honolulu" if written[0] == "0" else "Asia/Seoul")
    with pytest.raises(UserError, match=r"of '' is no day: write YYYY-MM-DD"):
        Topic.from_mapping({"date": written})


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
