"""Thresholds with a promise: chosen from labelled pairs that the model has not learnt from, instead of by feel.

Of the surest n pairs a share is shown to be right by a binomial test: k right ones of n reject "fewer are" at level a
where the one-sided lower bound of Clopper and Pearson (1934) at confidence 1 - a reaches the share. Many n are looked
at, from the surest pairs downward. So that all looks together err no more often than asked, they are tested in this
fixed order by the fallback procedure (Wiens and Dmitrienko 2005): what may err is dealt out beforehand to a few starts,
handed on from a look that was passed to the next one, and lost at one that was not. Where a start lies depends on
nothing but what is asked, and a look on nothing but the order of scores; neither on labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, betaincinv

from shopvision.errors import UserError
from shopvision.evaluation.pair_metrics import best_f1_threshold, checked
from shopvision.evaluation.promises import (
    TABLE,
    EvidenceCounts,
    Promise,
    ShownDifferent,
    ShownPromises,
    ShownSame,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# (mistakes that the first look of a start allows, share of the error allowed that the start has). One mistake among the
# surest pairs is enough to fail the first start; with more pairs, later ones make up for it.
STARTS = ((0, 0.7), (3, 0.2), (12, 0.1))
# Validation of ten times the fewest pairs needed shows the promise where two in three pairs of the same item score high
# and 2 % of them are wrong.
ENOUGH = 10


@dataclass(frozen=True)
class Evidence:
    """Labelled pairs with the probability that a model who had not learnt from them gave.

    Attributes:
        probabilities: (n,) calibrated, on the scale of the model whose thresholds are chosen.
        labels: (n,) 0 or 1.
        cross_fitted: (n,) whether the pair is of training and was scored by a model of another fold; else it is of
            validation, and scored by the model itself.
    """

    probabilities: Floats
    labels: NDArray[np.int8]
    cross_fitted: Mask

    @classmethod
    def of_validation(cls, probabilities: Floats, labels: NDArray[np.int8]) -> Evidence:
        """Validation pairs alone."""
        return cls(probabilities, labels, np.zeros(len(labels), np.bool_))

    def and_cross_fitted(self, probabilities: Floats, labels: NDArray[np.int8]) -> Evidence:
        """These pairs, and further ones of training."""
        return Evidence(
            np.concatenate([self.probabilities, probabilities]),
            np.concatenate([self.labels, labels]),
            np.concatenate([self.cross_fitted, np.ones(len(labels), np.bool_)]),
        )

    def counts(self) -> EvidenceCounts:
        """How many there are."""
        positive = self.labels == 1
        return EvidenceCounts(
            validation=int((~self.cross_fitted).sum()),
            validation_positives=int((positive & ~self.cross_fitted).sum()),
            cross_fitted=int(self.cross_fitted.sum()),
            cross_fitted_positives=int((positive & self.cross_fitted).sum()),
        )


@dataclass(frozen=True)
class Chosen:
    """The thresholds of a card (``same``, ``different``, ``decision``), and what was shown of promises."""

    thresholds: dict[str, float]
    shown: ShownPromises


def lower_bound(right: int, pairs: int, level: float) -> float:
    """One-sided lower bound of a share at confidence ``1 - level`` (Clopper and Pearson 1934)."""
    return float(betaincinv(right, pairs - right + 1, level)) if right else 0.0


def fewest_pairs(share: float, level: float, mistakes: int = 0) -> int:
    """Fewest pairs, ``mistakes`` of them wrong, that show ``share`` at confidence ``1 - level``."""
    low, high = mistakes + 1, mistakes + 2
    while bdtrc(high - mistakes - 1, high, share) > level:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if bdtrc(middle - mistakes - 1, middle, share) > level:
            low = middle + 1
        else:
            high = middle
    return low


def fewest_positives(promise: Promise) -> int:
    """Pairs of the same item that a model without a mistake needs to show ``promise.precision``."""
    return fewest_pairs(promise.precision, STARTS[0][1] * (1 - promise.confidence))


@dataclass(frozen=True)
class Cuts:
    """The surest pairs, cut wherever the score falls; k cuts.

    Attributes:
        scores: (k,) lowest score above the cut; falling.
        pairs: (k,) pairs above it.
        right: (k,) those that are right.
        levels: (k,) level that each cut was tested at; 0 where nothing was left for it.
        shown: (k,) whether the share was shown.
    """

    scores: Floats
    pairs: NDArray[np.int64]
    right: NDArray[np.int64]
    levels: Floats
    shown: Mask


def cuts_from_the_surest(sureness: Floats, right: Mask, *, share: float, confidence: float) -> Cuts:
    """Which cuts keep a promise; the chance that one of those shown does not is ``1 - confidence`` at most.

    Args:
        sureness: (n,) higher is surer.
        right: (n,) whether a pair is what is claimed of the surest.
        share: of the pairs above a cut that shall be right.
        confidence: see above.
    """
    values, group, sizes = np.unique(-sureness, return_inverse=True, return_counts=True)
    pairs = np.cumsum(sizes)
    hits = np.cumsum(np.bincount(group, right, minlength=len(values))).astype(np.int64)
    # P(X >= hits) of pairs of which exactly the share is right.
    chance = np.where(hits > 0, bdtrc(np.maximum(hits - 1, 0).astype(np.float64), pairs, share), 1.0)
    levels, shown = np.zeros(len(values)), np.zeros(len(values), np.bool_)
    allowed = [part * (1 - confidence) for _, part in STARTS]
    firsts = [fewest_pairs(share, level, wrong) for (wrong, _), level in zip(STARTS, allowed, strict=True)]
    places = [*np.searchsorted(pairs, firsts).tolist(), len(values)]
    handed_on = 0.0
    for start, end, own in zip(places[:-1], places[1:], allowed, strict=True):
        level = own + handed_on
        failed = np.flatnonzero(chance[start:end] > level)
        passed = start + int(failed[0]) if failed.size else end
        shown[start:passed] = True
        levels[start : min(passed + 1, end)] = level
        handed_on = 0.0 if failed.size else level
    return Cuts(-values, pairs, hits, levels, shown)


def choose_thresholds(evidence: Evidence, promise: Promise | None = None) -> Chosen:
    """The three thresholds of a card, with nothing promised that the evidence does not show.

    ``decision`` is the threshold of the best F1 of the validation pairs. ``same`` is the lowest probability, at or
    above it, from which on ``promise.precision`` is shown, ``different`` the highest, at or below it, down from which
    ``promise.missed`` is. What lies between is for a person, and so is a gap between the pairs of both sides, where
    nothing was seen. Where nothing is shown, ``same`` is 1 and ``different`` 0, and everything goes to review.

    The promise holds for pairs that are drawn as the evidence was: a blocking that lets more different pairs through
    lowers precision. It takes pairs for independent; those that share an item are not quite.

    Args:
        evidence: pairs of both labels, validation pairs of both among them.
        promise: what is asked; by default ``Promise()``.

    Raises:
        UserError: labels of validation are all equal; see ``pair_metrics.checked``.
    """
    promise = promise or Promise()
    scores, truth = checked(evidence.probabilities, evidence.labels)
    validation = ~evidence.cross_fitted
    of_validation = truth[validation]
    if of_validation.all() or not of_validation.any():
        which = "the same item" if of_validation.all() else "different items"
        raise UserError(f"All {len(of_validation):,} validation pairs are {which}: give pairs of both labels.")
    decision, _ = best_f1_threshold(scores[validation], of_validation)
    different = _different(scores, truth, promise, decision)
    lowest = 0.0 if different.threshold is None else different.threshold
    same = {
        precision: _same(scores, truth, promise.asking(precision=precision), decision, lowest)
        for precision in sorted({*TABLE, promise.precision})
    }
    asked = same[promise.precision].threshold
    shown = ShownPromises(asked=promise, evidence=evidence.counts(), same=tuple(same.values()), different=different)
    return Chosen({"same": 1.0 if asked is None else asked, "different": lowest, "decision": decision}, shown)


def _same(scores: Floats, truth: Mask, promise: Promise, decision: float, different: float) -> ShownSame:
    cuts = cuts_from_the_surest(scores, truth, share=promise.precision, confidence=promise.confidence)
    passed = np.flatnonzero(cuts.shown & (cuts.scores >= decision))
    if not passed.size:
        chosen, there = cuts.scores >= decision, int(truth.sum())
        needed, too_few = _needed(cuts, promise.precision, promise.confidence, there, chosen)
        review = float((scores > different).mean())
        return ShownSame(
            precision=promise.precision, threshold=None, pairs=0, lower_bound=None, recall=0.0, review_share=review,
            positives_needed=needed, too_few=too_few,
        )  # fmt: skip
    last = passed[-1]
    threshold = float(cuts.scores[last])
    right, pairs = int(cuts.right[last]), int(cuts.pairs[last])
    return ShownSame(
        precision=promise.precision,
        threshold=threshold,
        pairs=pairs,
        lower_bound=lower_bound(right, pairs, float(cuts.levels[last])),
        recall=right / int(truth.sum()),
        review_share=float(((scores > different) & (scores < threshold)).mean()),
    )


def _different(scores: Floats, truth: Mask, promise: Promise, decision: float) -> ShownDifferent:
    cuts = cuts_from_the_surest(-scores, ~truth, share=1 - promise.missed, confidence=promise.confidence)
    below = -cuts.scores < decision
    passed = np.flatnonzero(cuts.shown & below)
    if not passed.size:
        needed, too_few = _needed(cuts, 1 - promise.missed, promise.confidence, int((~truth).sum()), below)
        return ShownDifferent(
            missed=promise.missed, threshold=None, pairs=0, upper_bound=None, negatives_needed=needed, too_few=too_few
        )
    last = passed[-1]
    right, pairs = int(cuts.right[last]), int(cuts.pairs[last])
    return ShownDifferent(
        missed=promise.missed,
        threshold=float(-cuts.scores[last]),
        pairs=pairs,
        upper_bound=1 - lower_bound(right, pairs, float(cuts.levels[last])),
    )


def _needed(cuts: Cuts, share: float, confidence: float, there: int, chosen: Mask) -> tuple[int | None, bool]:
    """How many pairs of what is claimed would show ``share``, if some cut kept its rate of mistakes; to two digits.

    By the bound of Chernoff, exact without mistakes. The rate of a cut of few pairs is taken for a little worse than it
    was seen (Jeffreys), so that a lucky handful promises nothing. Where there are fewer pairs than could show ``share``
    at all, that says little of a model that finds most of them with next to no mistake: then told is how many show it
    without one (true).
    """
    right, pairs = cuts.right[chosen], cuts.pairs[chosen]
    rate, level = (right + 0.5) / (pairs + 1), STARTS[0][1] * (1 - confidence)
    better, needed = rate > share, math.inf
    if better.any():
        rate, takes = rate[better], -math.log(level) * there / pairs[better]
        distance = rate * np.log(rate / share) + (1 - rate) * np.log((1 - rate) / (1 - share))
        needed = max(float((takes / distance).min()), there + 1.0)
    fewest = fewest_pairs(share, level)
    if there < fewest and needed > ENOUGH * fewest and ((right > share * pairs) & (2 * right >= there)).any():
        return fewest, True
    return (None if math.isinf(needed) else _rounded_up(needed)), False


def _rounded_up(number: float) -> int:
    """To two digits."""
    digits: int = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / digits) * digits
