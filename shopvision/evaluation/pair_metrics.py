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
    from sklearn.metrics import confusion_matrix_at_thresholds

    scores, truth = checked(probabilities, labels)
    _, wrong, _, found, upper = confusion_matrix_at_thresholds(truth, scores)
    lower = np.append(upper[1:], upper[-1])
    middle = lower + (upper - lower) / 2
    # Between neighbouring floats there is nothing: then the upper one separates them.
    thresholds = np.where((middle > lower) | (upper == lower), middle, upper)
    return Curve(thresholds, found, found + wrong, int(truth.sum()), len(scores))


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


def roc_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a pair of the same item scores above a pair of different ones; a tie counts half.

    NaN where all labels are equal.
    """
    scores, truth = checked(probabilities, labels)
    if truth.all() or not truth.any():
        return math.nan
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def average_precision(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the steps of the precision-recall curve; NaN where no pair is the same item."""
    scores, truth = checked(probabilities, labels)
    if not truth.any():
        return math.nan
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores))


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood, natural logarithm; a certain mistake costs as much as float64 can say (36)."""
    return float(log_losses(*checked(probabilities, labels)).mean())


def log_losses(scores: Floats, truth: Mask) -> Floats:
    """(n,) what each pair adds to ``log_loss``."""
    smallest = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(np.where(truth, scores, 1 - scores), smallest, 1.0)), np.float64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
