"""What comes from outside, checked before the database sees it: job parameters and keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shopvision.errors import JobError, UserError

MAX_ID_LENGTH = 200  # of items and plans, as the catalogue takes them
MAX_KEY_LENGTH = 500  # characters: an index of Postgres takes 2,704 bytes
MAX_MESSAGE_LENGTH = 2000
MAX_DEPTH = 32
MAX_DIGITS = 1_000  # of a whole number; Python writes 4,300
_TOO_LONG = 10**MAX_DIGITS
_SHOWN = 80


def require_storable(value: Any, name: str) -> None:
    """Refuse what JSON or Postgres cannot hold, anywhere inside of ``value``.

    Raises:
        UserError: names the first part that is text with NUL or half a surrogate pair, a float that is no number, a
            number of too many digits, or nested too deep.
    """
    parts: list[tuple[Any, str, int]] = [(value, name, 0)]
    while parts:
        part, where, depth = parts.pop()
        flaw = _flaw(part) if depth <= MAX_DEPTH else f"is nested more than {MAX_DEPTH} levels deep"
        if flaw is not None:
            raise UserError(f"{_short(where)} {flaw}. Nothing was submitted.")
        if isinstance(part, Mapping):
            parts += [(key, f"a name in {where}", depth + 1) for key in part]
            parts += [(inner, f"{where}.{key}", depth + 1) for key, inner in part.items()]
        elif isinstance(part, list | tuple | set | frozenset):
            parts += [(inner, where, depth + 1) for inner in part]


def require_key(key: object, name: str = "key") -> str:
    """The key, where it is one.

    Raises:
        UserError: it is no text, empty, too long, or cannot be stored.
    """
    if not isinstance(key, str):
        raise UserError(f"{name} is {type(key).__name__}: give text of at most {MAX_KEY_LENGTH} characters.")
    if not key.strip():
        raise UserError(f"{name} is empty: leave it out, or give text of at most {MAX_KEY_LENGTH} characters.")
    if len(key) > MAX_KEY_LENGTH:
        raise UserError(f"{name} has {len(key):,} characters, at most {MAX_KEY_LENGTH}: {_short(key)!r}.")
    require_storable(key, name)
    return key


def require_item_key(key: object) -> str:
    """The key of a job's item, where it is one.

    Raises:
        JobError: it is no text, too long, or cannot be stored: whoever wrote the kind has to mend it.
    """
    flaw = _flaw(key)
    if not isinstance(key, str):
        flaw = "is no text"
    elif len(key) > MAX_KEY_LENGTH:
        flaw = f"has {len(key):,} characters, at most {MAX_KEY_LENGTH}"
    if flaw is not None:
        raise JobError(f"An item key of this job {flaw}: {_short(str(key))!r}.")
    return str(key)


def storable(text: str) -> str:
    """``text`` as Postgres takes it, and not too long: for messages that came from anywhere."""
    return text[:MAX_MESSAGE_LENGTH].replace("\x00", "").encode(errors="replace").decode()


def _flaw(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which is no number"
    if isinstance(value, int) and abs(value) >= _TOO_LONG:
        return f"is a number of more than {MAX_DIGITS:,} digits"
    if isinstance(value, str):
        if "\x00" in value:
            return "contains a NUL character"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "is no valid Unicode text (half of a surrogate pair)"
    return None


def _short(text: str) -> str:
    """For a message of one line, whatever the text."""
    printable = text if text.isprintable() else repr(text)[1:-1]
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "..."
