"""The topic of a promotion plan: what the ranker is told about it, in eight slots."""

from __future__ import annotations

import datetime as dt
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from shopvision.errors import UserError
from shopvision.selection.plan_dates import TODAY, day_of, today


@dataclass(frozen=True, slots=True)
class Topic:
    """A plan (or one product) in words. Empty slots are allowed.

    Attributes:
        name: title.
        desc: description.
        date: first day, ``YYYY-MM-DD``; only its season counts. Without one, no season does: see ``dated``.
        cat1: coarsest category; ``cat2`` to ``cat4`` are finer.
        kwds: keywords, separated by commas.

    Raises:
        UserError: the date is not a day written so.
    """

    name: str
    desc: str = ""
    date: str = ""
    cat1: str = ""
    cat2: str = ""
    cat3: str = ""
    cat4: str = ""
    kwds: str = ""

    def __post_init__(self) -> None:
        if self.date and not _is_day(self.date):
            raise UserError(f"The date '{self.date}' of '{self.name}' is no day: write YYYY-MM-DD, or leave it empty.")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Topic:
        """A topic from a row of a table or a JSON object.

        Args:
            values: slot -> text. Missing slots, None and NaN are empty; ``kwds`` may also be a list of texts, ``date``
                also a moment, or a ``datetime.date``: see ``shopvision.selection.plan_dates``.

        Raises:
            UserError: a name is no slot, a value is no text, or the date is no day.
        """
        unknown = [name for name in values if name not in SLOTS]
        if unknown:
            raise UserError(f"A topic has no slot '{unknown[0]}'. The slots are {', '.join(SLOTS)}.")
        return cls(**{slot: _text(slot, values.get(slot)) for slot in SLOTS})

    def dated(self, day: str | None) -> Topic:
        """The same, and where it has no date, as one that begins on ``day``: ``YYYY-MM-DD``, or ``today`` in the shop.

        Raises:
            UserError: that is no day.
        """
        if self.date or not day:
            return self
        return replace(self, date=today() if day == TODAY else day)


SLOTS = tuple(field.name for field in fields(Topic))


def _is_day(text: str) -> bool:
    # The shape is checked too, because fromisoformat also takes 20210830 and 2021-W35-1.
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _text(slot: str, value: object) -> str:
    if isinstance(value, str):
        return day_of(value.strip()) if slot == "date" else value.strip()
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return ""
    if slot == "kwds" and isinstance(value, (list, tuple)) and all(isinstance(keyword, str) for keyword in value):
        return ",".join(value)
    if slot == "date" and isinstance(value, dt.date):
        return day_of(value)
    kind = "a text or a list of texts" if slot == "kwds" else "a text"
    raise UserError(f"The topic's slot '{slot}' must be {kind}, not {value!r}: put it in quotes.")
