"""Texts in CSV files that people open in a spreadsheet, which runs some of them as formulas."""

from __future__ import annotations

import re

_MARK = "'"
# A number is no formula, and programs join by ids that are some.
_RISKY = re.compile(rf"{_MARK}*(?:[=@\t\r]|[+\-](?![0-9]+(?:\.[0-9]+)?\Z))")


def neutralised(text: str) -> str:
    """``text`` behind an apostrophe, where a spreadsheet would take it for a formula."""
    return _MARK + text if _RISKY.match(text) else text


def original(text: str) -> str:
    """What :func:`neutralised` was given."""
    return text[1:] if text.startswith(_MARK) and _RISKY.match(text) else text
