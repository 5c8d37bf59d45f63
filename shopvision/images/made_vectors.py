"""Vectors that a model made: as they are stored, and kept for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = TypeVar("Key")
Value = TypeVar("Value")

# What was made last is kept for pictures with the same bytes.
REMEMBERED = 4096


def as_stored(vectors: NDArray[np.float32]) -> list[bytes | None]:
    """(n, d) -> little-endian float16 of each; None where it is not of unit length, because the model failed."""
    # A unit vector in float16 is off by less than 0.001; zeros and NaN are far off, and NaN compares false.
    good = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01
    halves = vectors.astype("<f2")
    return [half.tobytes() if fine else None for half, fine in zip(halves, good, strict=True)]


class Recent(Generic[Key, Value]):
    """What came last, by key; the oldest is forgotten."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._values: dict[Key, Value] = {}
        self._most = most

    def known(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """What is remembered of these."""
        return {key: self._values[key] for key in keys if key in self._values}

    def note(self, values: Mapping[Key, Value]) -> None:
        """Remember these."""
        self._values |= values
        while len(self._values) > self._most:
            del self._values[next(iter(self._values))]
