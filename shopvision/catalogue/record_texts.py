"""What a record may hold, so that Postgres and everyone after it can read it: texts in composed form, plain numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

MAX_DEPTH = 100
MAX_DIGITS = 1_000  # of a whole number: Postgres takes 131,072, and Python writes 4,300
_TOO_LONG = 10**MAX_DIGITS
_MANY_DIGITS = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
AS_BYTES = frozenset({"images"})  # names of files and objects: normalising would point to another one


class RecordError(ValueError):
    """A record that cannot be taken in; the message names the field and the mend."""


def normalised(record: dict[str, Any]) -> dict[str, Any]:
    """``record`` with every text in it, at any depth, in Unicode's composed form (NFC).

    Raises:
        RecordError: a text holds NUL, which Postgres cannot store, or is not valid UTF-8; a number is not finite or has
            too many digits; lists and objects stand too deep inside of each other.
    """
    try:
        plain = to_json(record).decode()
    except (PydanticSerializationError, ValueError):  # ValueError: depth, and texts that are not valid
        plain = ""
    suspect = not plain or "\\u0000" in plain or "NaN" in plain or "Infinity" in plain or may_be_too_long(plain)
    if not suspect and (plain.isascii() or unicodedata.is_normalized("NFC", plain)):
        return record
    result = {}
    for key, value in record.items():
        try:
            clean = composed(value)
            result[composed(key)] = value if key in AS_BYTES else clean
        except RecordError as error:
            shown = key.encode(errors="replace").decode().replace("\0", "?")
            raise RecordError(f"{shown}: {error}") from None
    return result


def normalised_or_error(record: dict[str, Any]) -> dict[str, Any] | RecordError:
    """The record as :func:`normalised` returns it, or what that raises."""
    try:
        return normalised(record)
    except RecordError as error:
        return error


def may_be_too_long(encoded: str) -> bool:
    """Whether JSON may hold a number of too many digits; a look at it costs nothing where it is short."""
    return len(encoded) > MAX_DIGITS and _MANY_DIGITS.search(encoded) is not None


def is_storable(text: str) -> bool:
    """Whether Postgres can take the text: no NUL, no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def composed(value: Any, depth: int = 0) -> Any:
    """A value of a record with every text in it in composed form; ``depth`` is how deep it stands.

    Raises:
        RecordError: as :func:`normalised`.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise RecordError("a NUL character; remove it from the text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError("not valid UTF-8; save the file as UTF-8") from None
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError("not a finite number; leave it out where there is none")
    if isinstance(value, int) and abs(value) >= _TOO_LONG:
        raise RecordError(f"a number of more than {MAX_DIGITS:,} digits; write it as text")
    if isinstance(value, dict | list | tuple) and depth == MAX_DEPTH:
        raise RecordError(f"nested {MAX_DEPTH} levels deep; make it flatter")
    if isinstance(value, dict):
        return {composed(key): composed(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [composed(inner, depth + 1) for inner in value]
    return value
