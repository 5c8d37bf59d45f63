"""What fetching one picture may cost, whatever its source: bytes, time and attempts."""

from __future__ import annotations

import email.utils
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from shopvision.errors import ItemError
from shopvision.settings import Settings

T = TypeVar("T")

ATTEMPTS = 3
PAUSE_SECONDS = 0.3
RETRIED_STATUSES = {429, 500, 502, 503, 504}
UNPACKED_BYTES = 2**16
# zlib's word for "gzip or zlib, see the first bytes"
EITHER_HEADER = zlib.MAX_WBITS | 32


class AnotherTry(Exception):  # noqa: N818 - a signal to ``patiently``, not an error
    """The source may answer differently in a moment.

    Attributes:
        after: seconds that the source itself asks to wait; None where it does not say.
    """

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header, which holds a number of them or a date; None for anything else."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        then = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def check_length(settings: Settings, length: int, what: object) -> None:
    """Raise ``ItemError`` (``too_large_bytes``) where a picture has more bytes than allowed."""
    if length > settings.image_max_bytes:
        raise ItemError(
            "too_large_bytes", f"{what} has {length:,} bytes or more; {settings.image_max_bytes:,} are allowed."
        )


def read_within(
    settings: Settings, parts: Iterable[bytes], what: str, deadline: float, *, encoding: str | None = None
) -> bytes:
    """Join a body's parts, watching its length and the clock (``time.monotonic()`` seconds) at each.

    Args:
        settings: the limits.
        parts: as they arrive.
        what: named in messages.
        deadline: when it must be here.
        encoding: a ``Content-Encoding``. None is asked for, yet many servers and objects in stores have one; the
            length that counts is that of the picture, not of its compressed form.

    Raises:
        ItemError: ``too_large_bytes``, ``timeout``, ``content_encoding`` or ``truncated``.
    """
    kept: list[bytes] = []
    length = 0
    for part in _plain(parts, encoding, what):
        length += len(part)
        check_length(settings, length, what)
        if time.monotonic() > deadline:
            raise ItemError("timeout", f"{what} comes too slowly: {length:,} bytes in time.")
        kept.append(part)
    return b"".join(kept)


def _plain(parts: Iterable[bytes], encoding: str | None, what: str) -> Iterable[bytes]:
    names = [name for name in (encoding or "").lower().replace(" ", "").split(",") if name not in {"", "identity"}]
    if not names:
        return parts
    if names[0] in {"gzip", "x-gzip", "deflate"} and len(names) == 1:
        return _unpacked(parts, what)
    raise ItemError(
        "content_encoding",
        f"{what} is sent with Content-Encoding {encoding}, though pictures are compressed as they are: serve it plain.",
    )


def _unpacked(parts: Iterable[bytes], what: str) -> Iterator[bytes]:
    """A compressed body in small pieces, so that one which unpacks to gigabytes is stopped at the limit."""
    unpacker = zlib.decompressobj(EITHER_HEADER)
    try:
        for part in parts:
            piece, rest = b"", part
            while not unpacker.eof and (rest or len(piece) == UNPACKED_BYTES):
                piece = unpacker.decompress(rest, UNPACKED_BYTES)
                rest = unpacker.unconsumed_tail
                yield piece
        if not unpacker.eof:
            raise ItemError("truncated", f"{what}: its compressed body ends too early.")
    except zlib.error as error:
        raise ItemError("content_encoding", f"{what} is not compressed as its server says: {error}.") from None


def patiently(uri: str, deadline: float, attempt: Callable[[], T]) -> T:
    """Call ``attempt`` until it gives an answer instead of raising ``AnotherTry``, with growing pauses.

    Not by stamina, which writes a line in the log for each further try: of a busy host that is one for each of millions
    of pictures. Which were given up, and why, stands among the failed items.

    A source that stays away costs this picture, not the job: other pictures may live elsewhere, and failed items can
    be retried. A source that says when to come again is asked as long as there is time.

    Args:
        uri: named in the message.
        deadline: no pause ends after it (``time.monotonic()`` seconds).
        attempt: what to do.

    Raises:
        ItemError: ``unavailable``, after the last attempt.
    """
    number = 0
    while True:
        number += 1
        try:
            return attempt()
        except AnotherTry as error:
            reason, after = " ".join(str(error).split()), error.after
        pause = PAUSE_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        if after is not None:
            pause = max(pause, after)
            reason += f", and asks to wait for {after:.0f} s"
        if (number >= ATTEMPTS and after is None) or time.monotonic() + pause > deadline:
            raise ItemError("unavailable", f"{uri}: {reason} (attempt {number}).")
        time.sleep(pause)
