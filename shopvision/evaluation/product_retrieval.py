"""How well queries find their product in a gallery that has any number of right answers for each.

Ties in similarity are fair as in ``ranking_metrics``: a value is the expectation over the orders of tied items, and
what chance would give is the same expectation with everything tied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
NOTHING = -1
_ROWS = 512


@dataclass(frozen=True)
class Retrieved:
    """Of n queries.

    Attributes:
        recall: (n, len(ks)) expected 1 where a right answer is among the k nearest, 0 where none is.
        average_precision: (n,) mean over right answers of the precision at their ranks.
        random_recall: (n, len(ks)) the same of an order at random.
        random_average_precision: (n,) likewise.
    """

    recall: Floats
    average_precision: Floats
    random_recall: Floats
    random_average_precision: Floats

    def columns(self, ks: tuple[int, ...]) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Values and random expectations by metric: ``recall_K`` and ``map``."""
        names = [*(f"recall_{k}" for k in ks), "map"]
        values = [*self.recall.T, self.average_precision]
        random = [*self.random_recall.T, self.random_average_precision]
        return dict(zip(names, values, strict=True)), dict(zip(names, random, strict=True))


def retrieve(
    queries: Vectors,
    gallery: Vectors,
    products: NDArray[np.int64],
    gallery_products: NDArray[np.int64],
    ks: tuple[int, ...],
    *,
    own: NDArray[np.int64] | None = None,
) -> Retrieved:
    """Search by inner product; everything of the gallery that has a query's product is right.

    Args:
        queries: (n, d).
        gallery: (m, d); its size decides how hard the task is, so name it beside the number.
        products: (n,) of the queries; each has one in the gallery, beside its own row.
        gallery_products: (m,).
        ks: cut-offs of recall.
        own: (n,) row of the gallery that is the query itself and is left out, ``NOTHING`` where there is none.

    Raises:
        ValueError: a query has no right answer.
    """
    count, size = len(queries), len(gallery)
    own = np.full(count, NOTHING) if own is None else own
    result = Retrieved(np.empty((count, len(ks))), np.empty(count), np.empty((count, len(ks))), np.empty(count))
    order = np.argsort(gallery_products, kind="stable")
    starts = np.searchsorted(gallery_products[order], products, "left")
    ends = np.searchsorted(gallery_products[order], products, "right")
    for start in range(0, count, _ROWS):
        similarity = queries[start : start + _ROWS] @ gallery.T
        for row, scores in enumerate(similarity, start):
            right = order[starts[row] : ends[row]]
            right = right[right != own[row]]
            if not len(right):
                raise ValueError(f"query {row} has no right answer in the gallery")
            searched = size
            if own[row] != NOTHING:
                scores[own[row]] = -np.inf
                searched -= 1
            levels, repeats = np.unique(scores[right], return_counts=True)
            ties = [
                (int((scores > level).sum()), int((scores == level).sum()), int(repeat))
                for level, repeat in zip(levels[::-1], repeats[::-1], strict=True)
            ]
            result.recall[row] = [hit_probability(*ties[0], k) for k in ks]
            result.average_precision[row] = _average_precision(ties)
            result.random_recall[row], result.random_average_precision[row] = _chance(searched, len(right), ks)
    return result


@lru_cache(maxsize=1024)
def _chance(searched: int, right: int, ks: tuple[int, ...]) -> tuple[list[float], float]:
    """Recall and average precision of an order at random: everything is tied."""
    return [hit_probability(0, searched, right, k) for k in ks], _average_precision([(0, searched, right)])


def hit_probability(better: int, tied: int, right: int, k: int) -> float:
    """The probability that one of the ``right`` among ``tied`` items behind ``better`` ones is among the first k.

    ``1 - C(tied - right, s) / C(tied, s)`` with ``s = k - better`` places for the tied ones (hypergeometric).
    """
    places = k - better
    if places <= 0:
        return 0.0
    wrong = tied - right
    if places > wrong:
        return 1.0
    ways = gammaln([wrong + 1, wrong - places + 1, tied + 1, tied - places + 1])
    return float(-np.expm1(ways[0] - ways[1] - ways[2] + ways[3]))


def _average_precision(ties: list[tuple[int, int, int]]) -> float:
    """Of right answers in levels (better items, tied items, right ones among these), the nearest first.

    An item at place i of n tied ones, r of them right, is right with probability r / n, and then
    ``1 + (i - 1) (r - 1) / (n - 1)`` right ones are expected among the first i.
    """
    total, before = 0.0, 0
    for better, tied, right in ties:
        place = np.arange(1, tied + 1)
        found = before + 1 + (place - 1) * (right - 1) / max(1, tied - 1)
        total += right / tied * float((found / (better + place)).sum())
        before += right
    return total / before
