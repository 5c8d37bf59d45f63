"""The texts of a record, as Postgres and everyone after it can read them: valid, without NUL, in composed form."""

from __future__ import annotations

import unicodedata
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

AS_BYTES = frozenset({"images"})  # names of files and objects: normalising would point to another one


class RecordError(ValueError):
    """A record that cannot be taken in; the message names the field and the mend."""


def normalised(record: dict[str, Any]) -> dict[str, Any]:
    """``record`` with every text in it, at any depth, in Unicode's composed form (NFC).

    Raises:
        RecordError: a text holds NUL, which Postgres cannot store, or is not valid UTF-8.
    """
    try:
        plain = to_json(record).decode()
    except (PydanticSerializationError, UnicodeError):
        plain = ""
    if plain and "\\u0000" not in plain and (plain.isascii() or unicodedata.is_normalized("NFC", plain)):
        return record
    result = {}
    for key, value in record.items():
        try:
            clean = _composed(value)
            result[_composed(key)] = value if key in AS_BYTES else clean
        except RecordError as error:
            raise RecordError(f"{key.encode(errors='replace').decode()}: {error}") from None
    return result


def _composed(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise RecordError("a NUL character; remove it from the text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError("not valid UTF-8; save the file as UTF-8") from None
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {_composed(key): _composed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_composed(inner) for inner in value]
    return value
