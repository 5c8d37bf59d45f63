"""Which day a plan begins, in the shop's own time zone (``SHOPVISION_TIMEZONE``)."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from shopvision.settings import get_settings

DAY_CHARACTERS = 10
TODAY = "today"


def today() -> str:
    """The day it is in the shop, ``YYYY-MM-DD``."""
    return dt.datetime.now(_zone()).date().isoformat()


def day_of(written: str | dt.date) -> str:
    """The day of what a shop writes: of a moment with an offset (``2026-05-31T23:00Z``) the day it is in the shop then.

    Args:
        written: a day, a moment, or such a text in ISO 8601. A moment without an offset is the shop's own.

    Returns:
        ``YYYY-MM-DD``; a text that says neither comes back as it is.
    """
    if not isinstance(written, str):
        return _day(written)
    if len(written) <= DAY_CHARACTERS:
        return written
    try:
        return _day(dt.datetime.fromisoformat(written))
    except (ValueError, OverflowError):  # also a moment beyond the calendar's ends
        return written


def quarter(day: str) -> int:
    """Of the year, from 0 on: what a topic's season is."""
    return (int(day[5:7]) - 1) // 3


def _day(moment: dt.date) -> str:
    if isinstance(moment, dt.datetime):
        moment = (moment if moment.tzinfo is None else moment.astimezone(_zone())).date()
    return moment.isoformat()


def _zone() -> ZoneInfo:
    return ZoneInfo(get_settings().timezone)
