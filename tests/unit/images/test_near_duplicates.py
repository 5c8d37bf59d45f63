"""Which picture stands for others that are nearly the same."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.images import near_duplicates
from shopvision.images.near_duplicates import leaders


def by_hand(vectors: np.ndarray, nearly_same: float, contents: list[bytes | None]) -> list[int]:
    """One after the other, in float64: equal bytes first, else the first leader that is near enough."""
    found: list[int] = []
    for row, vector in enumerate(vectors.astype(np.float64)):
        kept = [leader for leader in dict.fromkeys(found) if found[leader] == leader]
        same = [one for one in kept if contents[row] is not None and contents[one] == contents[row]]
        near = [one for one in kept if vectors[one].astype(np.float64) @ vector > nearly_same]
        found.append((same or near or [row])[0])
    return found


@pytest.mark.parametrize("block", [1, 7, 256])
def test_the_first_of_those_that_are_near_stands_for_them(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK_ROWS", block)
    random = np.random.default_rng(3)
    vectors = random.standard_normal((60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    contents = [None if number % 3 else bytes([number % 5]) for number in range(60)]
    expected = by_hand(vectors, 0.9, contents)
    assert 10 < len(set(expected)) < 50
    assert leaders(vectors, 0.9, contents).tolist() == expected


def test_alone_and_none() -> None:
    assert leaders(np.empty((0, 4), np.float32), 0.9).tolist() == []
    equal = np.tile(np.array([[1, 0]], np.float32), (3, 1))
    assert leaders(equal, 1.0).tolist() == [0, 1, 2]
    assert leaders(equal, 1.0, [b"a", None, b"a"]).tolist() == [0, 1, 0]
