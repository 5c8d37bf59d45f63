"""How well scores order the items of many lists: MRR, TopN-TopK hits and NDCG, one value per list.

A *list* is what one query ranks: for a promotion plan its candidate pictures, with a score (higher is better) and a
true label (higher is better) each. Lists may differ in length.

**Ties are fair.** Items of equal score are taken to lie in random order, and so are items of equal label where a
metric asks which is truly best. Every function returns the exact expected value over these orders, in closed form: a
model that gives all items one score gets exactly the random expectation, and nothing depends on the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb, digamma
from scipy.stats import rankdata

from shopvision.errors import UserError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RankedLists:
    """The lists of an evaluation as matrices, padded with ``-inf`` behind each list's items.

    Attributes:
        scores: (lists, longest) float64, what the model says.
        labels: (lists, longest) float64, the truth.
        counts: (lists,) int64, items of each list.
    """

    scores: Floats
    labels: Floats
    counts: NDArray[np.int64]

    @classmethod
    def from_lists(cls, scores: Sequence[ArrayLike], labels: Sequence[ArrayLike]) -> RankedLists:
        """Pad lists of different lengths.

        Args:
            scores: per list (n,) scores.
            labels: per list (n,) labels, of the same length.

        Raises:
            UserError: no list, an empty list, lengths that differ, or a value that is not finite.
        """
        if not scores or len(scores) != len(labels):
            raise UserError(f"{len(scores)} lists of scores and {len(labels)} of labels: give as many, at least one.")
        counts = np.array([np.size(row) for row in scores], np.int64)
        padded = np.full((2, len(counts), int(counts.max())), -np.inf)
        for index, (score, label) in enumerate(zip(scores, labels, strict=True)):
            if np.size(label) != counts[index] or not counts[index]:
                raise UserError(f"List {index} has {counts[index]} scores and {np.size(label)} labels: give as many.")
            padded[0, index, : counts[index]] = score
            padded[1, index, : counts[index]] = label
        real = np.arange(padded.shape[2]) < counts[:, None]
        broken = np.flatnonzero((~np.isfinite(padded) & real).any(axis=(0, 2)))
        if broken.size:
            raise UserError(f"List {broken[0]} has a score or label that is not a finite number.")
        return cls(padded[0], padded[1], counts)


def reciprocal_rank(lists: RankedLists) -> Floats:
    """1 / rank that the scores give to the item of highest label; the mean over lists is MRR.

    An item with g better ones that shares its score with t - 1 others has the expectation
    ``(1/(g+1) + ... + 1/(g+t)) / t``. Of several items with the highest label the mean counts.

    Returns:
        (lists,) in (0, 1].
    """
    first, last = _ranks(lists.scores)
    expected = (digamma(last + 1.0) - digamma(first)) / (last - first + 1)
    best = lists.labels == lists.labels.max(axis=1, keepdims=True)
    return np.asarray((expected * best).sum(axis=1) / best.sum(axis=1), np.float64)


def random_reciprocal_rank(counts: NDArray[np.int64]) -> Floats:
    """Expectation of the reciprocal rank under a random order of n items: H_n / n."""
    return np.asarray((digamma(counts + 1.0) + np.euler_gamma) / counts, np.float64)


def top_hit(lists: RankedLists, truly: int, predicted: int) -> Floats:
    """TopN-TopK: whether any of the ``truly`` (N) best by label is among the ``predicted`` (K) best by score.

    With ties at the border of either set, the probability of that, every choice of the tied items being equally likely.

    Returns:
        (lists,) in [0, 1].
    """
    sure_true, open_true, free_true = _top(lists.labels, lists.counts, truly)
    sure_seen, open_seen, free_seen = _top(lists.scores, lists.counts, predicted)
    sure_hit = (sure_true & sure_seen).any(axis=1)
    tied = open_seen.sum(axis=1)
    tied_true = open_true.sum(axis=1)
    both = (open_seen & open_true).sum(axis=1)
    harmless = (open_seen & ~open_true & ~sure_true).sum(axis=1)
    reachable = (open_true & ~sure_seen).sum(axis=1)
    miss = np.zeros(len(lists.counts))
    # j of the tied predictions are also tied truths; then the truths must be chosen among the rest.
    for j in range(min(truly, predicted, lists.scores.shape[1]) + 1):
        seen = comb(both, j) * comb(harmless, free_seen - j) / comb(tied, free_seen)
        miss += seen * comb(reachable - j, free_true) / comb(tied_true, free_true)
    return np.where(sure_hit, 1.0, 1.0 - miss)


def random_top_hit(counts: NDArray[np.int64], truly: int, predicted: int) -> Floats:
    """Expectation of the TopN-TopK hit under a random order of n items: 1 - C(n-N, K) / C(n, K)."""
    truly_, predicted_ = np.minimum(truly, counts), np.minimum(predicted, counts)
    return np.asarray(1.0 - comb(counts - truly_, predicted_) / comb(counts, predicted_), np.float64)


def ndcg(lists: RankedLists, k: int) -> Floats:
    """Normalised discounted cumulative gain of the k best by score (Jarvelin and Kekalainen 2002; ties: McSherry 2008).

    The gain is the label itself (a CTR, a count), the discount 1 / log2(rank + 1).

    Returns:
        (lists,) in [0, 1]; NaN where all labels are zero, because every order is then as good.

    Raises:
        UserError: a negative label: gains are not negative.
    """
    gains = _gains(lists)
    first, last = _ranks(lists.scores)
    cumulative = np.concatenate([[0.0], np.cumsum(_discounts(gains.shape[1], k))])
    discount = (cumulative[last] - cumulative[first - 1]) / (last - first + 1)
    return _over_ideal((gains * discount).sum(axis=1), gains, k)


def random_ndcg(lists: RankedLists, k: int) -> Floats:
    """Expectation of ``ndcg`` under a random order: the mean label times the sum of discounts, over the ideal."""
    gains = _gains(lists)
    cumulative = np.cumsum(_discounts(gains.shape[1], k))
    return _over_ideal(gains.sum(axis=1) / lists.counts * cumulative[lists.counts - 1], gains, k)


def _ranks(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last rank (from 1, highest value first) that each item can have, ties in any order."""
    first = rankdata(-values, method="min", axis=1).astype(np.int64)
    last = rankdata(-values, method="max", axis=1).astype(np.int64)
    return first, last


def _top(values: Floats, counts: NDArray[np.int64], size: int) -> tuple[Mask, Mask, NDArray[np.int64]]:
    """The ``size`` best of each list: those surely in, those tied at the border, and how many of these get in."""
    wanted = np.minimum(size, counts)[:, None]
    first, last = _ranks(values)
    sure = last <= wanted
    tied = (first <= wanted) & ~sure
    return sure, tied, wanted[:, 0] - sure.sum(axis=1)


def _gains(lists: RankedLists) -> Floats:
    gains = np.where(np.isneginf(lists.labels), 0.0, lists.labels)
    if gains.min() < 0:
        raise UserError(f"A label is {gains.min():g}: NDCG needs labels that are not negative.")
    return gains


def _discounts(length: int, k: int) -> Floats:
    ranks = np.arange(1, length + 1)
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def _over_ideal(gain: Floats, gains: Floats, k: int) -> Floats:
    ideal = (-np.sort(-gains, axis=1) * _discounts(gains.shape[1], k)).sum(axis=1)
    result = np.full(len(gain), np.nan)
    np.divide(gain, ideal, out=result, where=ideal > 0)
    return result
