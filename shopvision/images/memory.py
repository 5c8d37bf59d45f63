"""One budget of memory for all pictures that a process decodes at the same time, whichever threads do it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

from shopvision.errors import ItemError

# Bytes per pixel as Pillow keeps them; every other mode takes four.
STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
RGB_BYTES = 4
# Bytes per pixel of the whole picture that a decoder takes beside the result: while it decodes, and until the picture
# is let go. Measured; AVIF of 10 and 12 bits takes the most. The others decode row by row.
DECODERS = {"WEBP": (14, 9), "AVIF": (12, 8)}
# Two for each value: JPEGs whose values do not come in one go are kept as coefficients, also when read at a scale.
COEFFICIENT_BYTES = 2
# What each picture takes besides, however small it is.
BESIDES = 2**22

_changed = threading.Condition()
_held = 0
_waiting: deque[object] = deque()


@contextmanager
def held(needed: int, limit: int) -> Iterator[None]:
    """Have ``needed`` bytes of this process's ``limit`` until the block ends, waiting for others to give theirs back.

    Who comes first is served first, so a large picture does not wait for ever while small ones pass. A thread that
    holds some must not ask for more.

    Raises:
        ItemError: ``over_memory``, where it is more than there is at all.
    """
    global _held  # noqa: PLW0603 - the process has one memory
    if needed > limit:
        raise ItemError("over_memory", f"Decoding takes {needed:,} bytes; {limit:,} are there for all pictures.")
    turn = object()
    with _changed:
        _waiting.append(turn)
        try:
            _changed.wait_for(lambda: _waiting[0] is turn and _held + needed <= limit)
            _held += needed
        finally:
            _waiting.remove(turn)
            _changed.notify_all()
    try:
        yield
    finally:
        with _changed:
            _held -= needed
            _changed.notify_all()


def decoding_bytes(
    image: ImageFile.ImageFile, data: bytes, full_size: tuple[int, int], *, turned: bool, cut: bool
) -> int:
    """At most so much memory is taken by decoding ``image`` and making it upright RGB.

    Args:
        image: opened and not yet loaded; its size is that of the scale it will be decoded at.
        data: what it was opened from.
        full_size: (width, height) without that scale.
        turned: whether its pixels have to be turned.
        cut: whether regions are cut out of it.
    """
    pixels, all_pixels = image.width * image.height, full_size[0] * full_size[1]
    decoding, kept = DECODERS.get(image.format or "", (0, 0))
    if image.format in {"JPEG", "MPO"} and not _has_one_scan(image, data):
        decoding = kept = COEFFICIENT_BYTES * len(image.getbands())  # freed, yet not always given back by then
    stored = pixels * STORED.get(image.mode, RGB_BYTES)
    later = all_pixels * kept
    if turned:
        later += stored
    if image.mode != "RGB" or "transparency" in image.info:
        later += pixels * RGB_BYTES
    if cut:
        later += pixels * RGB_BYTES
    return stored + max(all_pixels * decoding, later) + 2 * len(data) + BESIDES


def _has_one_scan(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether all of a JPEG's components come together: it is sequential, and its first scan names them all.

    Its header has been read up to the end of the first scan's own: marker, length (2 bytes), number of components, ...
    """
    if image.info.get("progressive") or image.fp is None:
        return False
    components = len(image.getbands())
    start = image.fp.tell() - (6 + 2 * components)
    return data[start - 2 : start] == b"\xff\xda" and data[start + 2] == components
