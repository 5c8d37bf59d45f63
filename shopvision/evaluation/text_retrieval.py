"""How well texts find the pictures that show what they say, of which each may have several.

Ties in similarity are fair: a value is the expectation over the orders of tied pictures, and what chance would give is
the same expectation with everything tied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from shopvision.evaluation.product_retrieval import hit_probability

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
_ROWS = 512


@dataclass(frozen=True)
class TextRetrieval:
    """Of n texts; a text without any right picture has only zeros, also by chance.

    Attributes:
        hit: (n, len(ks)) expected 1 where a right picture is among the k nearest (the published "recall@k").
        recall: (n, len(ks)) share of the right pictures among the k nearest.
        reciprocal_rank: (n,) of the nearest right picture.
        random: the same of an order at random; None of itself.
    """

    hit: Floats
    recall: Floats
    reciprocal_rank: Floats
    random: TextRetrieval | None = None

    def columns(self, ks: tuple[int, ...]) -> dict[str, Floats]:
        """Values by metric: ``hit_rate_K``, ``recall_K``, ``mrr``."""
        names = [*(f"hit_rate_{k}" for k in ks), *(f"recall_{k}" for k in ks), "mrr"]
        return dict(zip(names, [*self.hit.T, *self.recall.T, self.reciprocal_rank], strict=True))


def retrieve_pictures(
    texts: Vectors, pictures: Vectors, right: Sequence[Sequence[int]], ks: tuple[int, ...]
) -> TextRetrieval:
    """Search by inner product.

    Args:
        texts: (n, h).
        pictures: (m, h); their number decides how hard the task is, so name it beside the result.
        right: for each text the rows of its pictures.
        ks: cut-offs.
    """
    count, size = len(texts), len(pictures)
    found, chance = _empty(count, ks), _empty(count, ks)
    for start in range(0, count, _ROWS):
        similarity = texts[start : start + _ROWS] @ pictures.T
        for row, scores in enumerate(similarity, start):
            rows = np.asarray(right[row], np.int64)
            if not len(rows):
                continue
            levels, repeats = np.unique(scores[rows], return_counts=True)
            ties = [
                (int((scores > level).sum()), int((scores == level).sum()), int(repeat))
                for level, repeat in zip(levels[::-1], repeats[::-1], strict=True)
            ]
            _write(found, row, _expected(ties, ks))
            _write(chance, row, _by_chance(size, len(rows), ks))
    return TextRetrieval(found.hit, found.recall, found.reciprocal_rank, chance)


def _empty(count: int, ks: tuple[int, ...]) -> TextRetrieval:
    return TextRetrieval(np.zeros((count, len(ks))), np.zeros((count, len(ks))), np.zeros(count))


_Values = tuple[list[float], list[float], float]


def _write(into: TextRetrieval, row: int, values: _Values) -> None:
    into.hit[row], into.recall[row], into.reciprocal_rank[row] = values


@lru_cache(maxsize=1024)
def _by_chance(size: int, right: int, ks: tuple[int, ...]) -> _Values:
    return _expected([(0, size, right)], ks)


def _expected(ties: list[tuple[int, int, int]], ks: tuple[int, ...]) -> _Values:
    """Of right pictures in levels (better pictures, tied ones, right ones among these), the nearest first."""
    better, tied, right = ties[0]
    total = sum(of_level for *_, of_level in ties)
    shares = [sum(r * min(1.0, max(0.0, (k - b) / t)) for b, t, r in ties) / total for k in ks]
    # Behind j wrong ones of the level stands the first right one where the first j + 1 places have one and j have none.
    wrong = np.arange(tied - right + 1)
    none_yet = np.exp(
        gammaln(tied - wrong + 1) - gammaln(tied - wrong - right + 1) - gammaln(tied + 1) + gammaln(tied - right + 1)
    )
    first_here = none_yet - np.append(none_yet[1:], 0.0)
    reciprocal = float((first_here / (better + wrong + 1)).sum())
    return [hit_probability(better, tied, right, k) for k in ks], shares, reciprocal
