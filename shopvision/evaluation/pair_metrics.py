"""How well probabilities tell pairs of the same item from pairs of different ones.

A pair counts as found where its probability is at least the threshold. All functions take ``probabilities`` (n,), in
float64 from here on, and ``labels`` (n,), 1 = the same item, 0 = different ones; pairs of equal probability always fall
on the same side of a threshold, so nothing depends on the order of rows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure, percentiles, resampled

ECE_BINS = 15

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Mask]:
    """(n,) float64 scores and (n,) whether the pair is the same item.

    Raises:
        UserError: no pair, lengths that differ, a score that is not finite, or a label other than 0 and 1.
    """
    scores, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != truth.shape or not scores.size:
        raise UserError(f"{scores.size} probabilities and {truth.size} labels: give as many, at least one.")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise UserError(f"Pair {broken[0]} has a probability that is not a finite number.")
    unlabelled = np.flatnonzero((truth != 0) & (truth != 1))
    if unlabelled.size:
        raise UserError(f"Pair {unlabelled[0]} has the label {truth[unlabelled[0]]}: measuring needs 0 or 1.")
    return scores, truth.astype(np.bool_)


@dataclass(frozen=True)
class Curve:
    """Every way to cut the pairs by their score, the strictest first; k = number of different scores.

    Attributes:
        thresholds: (k,) falling; halfway between neighbouring scores, the last one the lowest score itself.
        found: (k,) pairs of the same item at or above the threshold (true positives).
        predicted: (k,) all pairs at or above it.
        positives: pairs of the same item.
        count: all pairs.
    """

    thresholds: Floats
    found: Floats
    predicted: Floats
    positives: int
    count: int

    @property
    def precision(self) -> Floats:
        """(k,) share of the predicted pairs that are the same item."""
        return self.found / self.predicted

    @property
    def recall(self) -> Floats:
        """(k,) share of the pairs of the same item that are predicted; NaN without such pairs."""
        return self.found / (self.positives or math.nan)

    @property
    def f1(self) -> Floats:
        """(k,) harmonic mean of both."""
        return 2 * self.found / (self.predicted + self.positives)


def sweep(probabilities: ArrayLike, labels: ArrayLike) -> Curve:
    """All cut points, exactly; O(n log n).

    Raises:
        UserError: see ``checked``.
    """
    scores, truth = checked(probabilities, labels)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    upper, lower = ordered[last], np.append(ordered[last[1:]], ordered[-1])
    middle = lower + (upper - lower) / 2
    # Between neighbouring floats there is nothing: then the upper one separates them.
    thresholds = np.where((middle > lower) | (upper == lower), middle, upper)
    found = np.cumsum(truth[order], dtype=np.float64)[last]
    return Curve(thresholds, found, last + 1.0, int(truth.sum()), len(scores))


def best_f1_threshold(probabilities: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """The threshold of the highest F1, and that F1; of several the highest threshold. Never choose it on test data.

    Raises:
        UserError: no pair is the same item, so there is no F1; or see ``checked``.
    """
    curve = sweep(probabilities, labels)
    if not curve.positives:
        raise UserError(f"None of {curve.count:,} pairs is the same item: a threshold needs pairs of both labels.")
    best = int(np.argmax(curve.f1))
    return float(curve.thresholds[best]), float(curve.f1[best])


@dataclass(frozen=True)
class Confusion:
    """Counts at one threshold; shares whose denominator is zero are NaN."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Share of the predicted pairs that are the same item."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the pairs of the same item that are predicted."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        both = 2 * self.true_positives
        return _share(both, both + self.false_positives + self.false_negatives)

    @property
    def accuracy(self) -> float:
        """Share of all pairs that are on the right side."""
        return _share(self.true_positives + self.true_negatives, sum(asdict(self).values()))


def confusion(probabilities: ArrayLike, labels: ArrayLike, threshold: float) -> Confusion:
    """Counts of right and wrong pairs at ``threshold``."""
    scores, truth = checked(probabilities, labels)
    predicted = scores >= threshold
    counts = ((predicted & truth), (predicted & ~truth), (~predicted & truth), (~predicted & ~truth))
    return Confusion(*(int(mask.sum()) for mask in counts))


def precision_recall_f1(probabilities: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[float, float, float]:
    """The three measures of the positive class at ``threshold``; see ``Confusion``."""
    counts = confusion(probabilities, labels, threshold)
    return counts.precision, counts.recall, counts.f1


def roc_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a pair of the same item scores above a pair of different ones; a tie counts half.

    NaN where all labels are equal.
    """
    scores, truth = checked(probabilities, labels)
    return float(_ranking(np.ones((1, len(scores))), *_tied(scores, truth))[0, 0])


def average_precision(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the steps of the precision-recall curve; NaN where no pair is the same item."""
    scores, truth = checked(probabilities, labels)
    return float(_ranking(np.ones((1, len(scores))), *_tied(scores, truth))[0, 1])


@dataclass(frozen=True)
class Reliability:
    """Equal-mass bins of pairs by probability, the lowest first.

    Attributes:
        expected: (bins,) mean probability.
        observed: (bins,) share of pairs that are the same item.
        counts: (bins,) pairs.
        noise: the ``ece`` that perfectly calibrated probabilities like these are expected to show by chance alone.
    """

    expected: Floats
    observed: Floats
    counts: NDArray[np.int64]
    noise: float

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of the bins' two shares, each pair counting once."""
        return float((np.abs(self.expected - self.observed) * self.counts).sum() / self.counts.sum())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = ECE_BINS) -> Reliability:
    """How far probabilities can be taken at their word, in bins of as equal size as possible.

    Where equal probabilities span a border, each bin gets the same share of their positives: the expectation over
    their order.
    """
    scores, truth = checked(probabilities, labels)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    _, group, sizes = np.unique(ordered, return_inverse=True, return_counts=True)
    positives = (np.bincount(group, truth[order]) / sizes)[group]
    starts = np.arange(min(bins, len(scores))) * len(scores) // min(bins, len(scores))
    counts = np.diff(np.append(starts, len(scores)))
    variance = np.add.reduceat(ordered * (1 - ordered), starts)
    # The sum of independent errors is nearly normal, whose mean distance from zero is sqrt(2 variance / pi).
    noise = np.sqrt(2 / math.pi * variance).sum() / len(scores)
    return Reliability(
        np.add.reduceat(ordered, starts) / counts, np.add.reduceat(positives, starts) / counts, counts, float(noise)
    )


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error over equal-mass bins; see ``reliability``."""
    return reliability(probabilities, labels, bins).ece


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of probability and label."""
    scores, truth = checked(probabilities, labels)
    return float(np.mean((scores - truth) ** 2))


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood, natural logarithm; a certain mistake costs as much as float64 can say (36)."""
    return float(_log_losses(*checked(probabilities, labels)).mean())


def measure_pairs(
    probabilities: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Measured]:
    """Every metric with its interval (pairs resampled) and what chance would give.

    Chance is a guess that finds as many pairs as the model does, drawn at random; for ``brier`` and ``log_loss`` the
    share of positives said of every pair; for ``ece`` what perfect calibration shows on so few pairs
    (``Reliability.noise``). ``ece`` has no interval, because resampled pairs always look worse calibrated.

    Args:
        probabilities: (n,).
        labels: (n,).
        threshold: chosen on other pairs.
        resamples: 0 leaves intervals out.
        seed: of the resampling.

    Returns:
        ``precision``, ``recall``, ``f1``, ``accuracy``, ``roc_auc``, ``average_precision``, ``ece``, ``brier``,
        ``log_loss``; ``units`` is the number of pairs in the denominator.
    """
    scores, truth = checked(probabilities, labels)
    found, rate = scores >= threshold, truth.mean()
    share = found.mean()
    entropy = float(_log_losses(np.full(len(truth), rate), truth).mean())
    # name: value of each pair, its weight, chance. F1 = 2 TP / (found + positives) is a weighted mean as well.
    columns: dict[str, tuple[NDArray[np.generic], NDArray[np.generic], float]] = {
        "precision": (truth, found, rate),
        "recall": (found, truth, share),
        "f1": (found & truth, found.astype(np.int64) + truth, 2 * share * rate / ((share + rate) or 1.0)),
        "accuracy": (found == truth, np.ones(len(truth)), share * rate + (1 - share) * (1 - rate)),
        "brier": ((scores - truth) ** 2, np.ones(len(truth)), rate * (1 - rate)),
        "log_loss": (_log_losses(scores, truth), np.ones(len(truth)), entropy),
    }
    weights = np.stack([weight for _, weight, _ in columns.values()], axis=1).astype(np.float64)
    values = np.stack([value for value, _, _ in columns.values()], axis=1).astype(np.float64)
    values[weights == 0] = np.nan
    chance = np.broadcast_to([chance for _, _, chance in columns.values()], values.shape)
    result = dict(zip(columns, measure(values, chance, weights, resamples=resamples, seed=seed), strict=True))
    result |= _measure_ranking(scores, truth, resamples, seed)
    bins = reliability(scores, truth)
    result["ece"] = Measured(bins.ece, math.nan, math.nan, bins.noise, len(truth))
    names = ["precision", "recall", "f1", "accuracy", "roc_auc", "average_precision", "ece", "brier", "log_loss"]
    return {name: result[name] for name in names}


def _measure_ranking(scores: Floats, truth: Mask, resamples: int, seed: int) -> dict[str, Measured]:
    """``roc_auc`` and ``average_precision``, which are no means over pairs."""
    tied = _tied(scores, truth)
    value = _ranking(np.ones((1, len(scores))), *tied)[0]
    low = high = np.full(2, np.nan)
    if resamples and not np.isnan(value).any():
        drawn = resampled(len(scores), resamples=resamples, seed=seed)
        low, high = percentiles(np.concatenate([_ranking(block, *tied) for block in drawn]))
    random = (0.5, float(truth.mean()))
    rows = zip(value.tolist(), low.tolist(), high.tolist(), random, strict=True)
    return {name: Measured(*row, len(scores)) for name, row in zip(("roc_auc", "average_precision"), rows, strict=True)}


def _tied(scores: Floats, truth: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
    """(n,) order by falling score, (k,) where each different score starts in it, (n,) labels in that order."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(0, np.flatnonzero(np.diff(scores[order])) + 1), truth[order]


def _ranking(drawn: Floats, order: NDArray[np.int64], starts: NDArray[np.int64], truth: Mask) -> Floats:
    """(resamples, 2) area under the ROC curve and average precision, pair i counting ``drawn[:, i]`` times."""
    weights = drawn[:, order]
    positives = np.add.reduceat(weights * truth, starts, axis=1)
    negatives = np.add.reduceat(weights * ~truth, starts, axis=1)
    found = positives.cumsum(axis=1)
    predicted = found + negatives.cumsum(axis=1)
    of_positives = found[:, -1]
    of_negatives = predicted[:, -1] - of_positives
    auc = (negatives * (found - positives / 2)).sum(axis=1)
    average = (positives * found / np.maximum(predicted, 1)).sum(axis=1)
    result = np.full((len(drawn), 2), np.nan)
    np.divide(auc, of_positives * of_negatives, out=result[:, 0], where=of_positives * of_negatives > 0)
    np.divide(average, of_positives, out=result[:, 1], where=of_positives > 0)
    return result


def _log_losses(scores: Floats, truth: Mask) -> Floats:
    smallest = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(np.where(truth, scores, 1 - scores), smallest, 1.0)), np.float64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
