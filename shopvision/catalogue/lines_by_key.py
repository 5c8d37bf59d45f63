"""Which keys a file held so far, and on which line: 16 bytes a key, whatever the keys' length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class LinesByKey:
    """Sorted 64-bit hashes beside line numbers. Two of ten million keys collide with a chance of 3 in a million."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.int64)
        self._lines = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._hashes)

    def lines(self, keys: Sequence[str]) -> list[int]:
        """For each key the line where it was first seen, 0 where it was not."""
        if not keys or not len(self._hashes):
            return [0] * len(keys)
        wanted = _hashed(keys)
        places = np.searchsorted(self._hashes, wanted).clip(max=len(self._hashes) - 1)
        found: list[int] = np.where(self._hashes[places] == wanted, self._lines[places], 0).tolist()
        return found

    def add(self, keys: Sequence[str], lines: Sequence[int]) -> None:
        """Note ``keys``, none of which was seen before."""
        hashes = _hashed(keys)
        order = np.argsort(hashes)
        places = np.searchsorted(self._hashes, hashes[order])
        self._hashes = np.insert(self._hashes, places, hashes[order])
        self._lines = np.insert(self._lines, places, np.asarray(lines, np.int64)[order])


def _hashed(keys: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(map(hash, keys), np.int64, len(keys))
