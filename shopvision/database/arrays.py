"""Lists in conditions: one bound array each, because a statement takes 65,535 parameters at most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, any_, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute


def among(column: InstrumentedAttribute[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """``column = ANY(values)``, however many there are."""
    return column == any_(bindparam(column.key, list(values), ARRAY(column.type), unique=True))
