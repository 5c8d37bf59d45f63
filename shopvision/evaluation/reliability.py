"""How far probabilities can be taken at their word."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.evaluation.pair_metrics import Floats, checked

ECE_BINS = 15


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
    their order. scikit-learn's ``calibration_curve`` has bins that depend on the order of rows, and no word on chance.
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
