"""What one picture may cost, whatever its source: bytes, time and attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from shopvision.errors import ItemError
from shopvision.settings import Settings

T = TypeVar("T")

ATTEMPTS = 3
PAUSE_SECONDS = 0.3
RETRIED_STATUSES = {429, 500, 502, 503, 504}


class AnotherTry(Exception):  # noqa: N818 - a signal to ``patiently``, not an error
    """The source may answer differently in a moment."""


def check_length(settings: Settings, length: int, what: object) -> None:
    """Raise ``ItemError`` (``too_large_bytes``) where a picture has more bytes than allowed."""
    if length > settings.image_max_bytes:
        raise ItemError(
            "too_large_bytes", f"{what} has {length:,} bytes or more; {settings.image_max_bytes:,} are allowed."
        )


def read_within(settings: Settings, parts: Iterable[bytes], what: str, deadline: float) -> bytes:
    """Join a body's parts, watching its length and the clock (``time.monotonic()`` seconds) at each."""
    kept: list[bytes] = []
    length = 0
    for part in parts:
        length += len(part)
        check_length(settings, length, what)
        if time.monotonic() > deadline:
            raise ItemError("timeout", f"{what} comes too slowly: {length:,} bytes in time.")
        kept.append(part)
    return b"".join(kept)


def patiently(uri: str, deadline: float, attempt: Callable[[], T]) -> T:
    """Call ``attempt`` until it gives an answer instead of raising ``AnotherTry``, with growing pauses.

    A source that stays away costs this picture, not the job: other pictures may live elsewhere, and failed items can
    be retried.

    Args:
        uri: named in the message.
        deadline: no pause ends after it (``time.monotonic()`` seconds).
        attempt: what to do.

    Raises:
        ItemError: ``unavailable``, after the last attempt.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except AnotherTry as error:
            reason = " ".join(str(error).split())
        pause = PAUSE_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        if number == ATTEMPTS or time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    raise ItemError("unavailable", f"{uri}: {reason} (attempt {number}).")
