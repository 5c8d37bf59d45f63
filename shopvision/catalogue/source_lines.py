"""Lines of a file, whatever they end with, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader

MAX_LINE_BYTES = 4 * 2**20


class SourceLines:
    """Iterates over (number from 1 on, line); None stands for a line that is too long to be one.

    The first line tells whether lines end with CR alone, as old spreadsheets write them, or with LF, also after CR. A
    byte order mark is left out.

    Attributes:
        is_cut: whether the line that came last had no end, so that the file may have been cut there.
    """

    def __init__(self, stream: BufferedReader) -> None:
        """``stream`` stands at its beginning."""
        self.is_cut = False
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        end = self._line_end()
        number = 0
        while line := self._read(end):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            is_too_long = len(line) == MAX_LINE_BYTES and not line.endswith(end)
            while len(line) == MAX_LINE_BYTES and not line.endswith(end):
                line = self._read(end)
            self.is_cut = not line.endswith(end)
            yield number, None if is_too_long else line

    def _line_end(self) -> bytes:
        head = self._stream.peek(1)
        first = head.find(b"\r")
        follower = head[first + 1 : first + 2]
        return b"\r" if first >= 0 and b"\n" not in head[:first] and follower not in {b"\n", b""} else b"\n"

    def _read(self, end: bytes) -> bytes:
        """The next line with its end, or the first bytes of a longer one."""
        if end == b"\n":
            return self._stream.readline(MAX_LINE_BYTES)
        parts: list[bytes] = []
        room = MAX_LINE_BYTES
        while room and (ahead := self._stream.peek(1)):
            part = self._stream.read(min(ahead.find(end) + 1 or len(ahead), room))
            parts.append(part)
            room -= len(part)
            if part.endswith(end):
                break
        return b"".join(parts)
