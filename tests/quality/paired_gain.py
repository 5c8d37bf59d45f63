"""How far one model of pairs is ahead of another on the same pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shopvision.evaluation.bootstrap import percentiles, resampled
from shopvision.evaluation.pair_metrics import best_f1_threshold

Floats = NDArray[np.float64]


def gain_in_f1(before: Floats, after: Floats, labels: NDArray[np.int8]) -> tuple[float, float, float]:
    """F1 of ``after`` less that of ``before``, each at its own best threshold, and its 95 % interval.

    Pairs are drawn again with replacement, the same ones for both; thresholds stay.
    """
    truth = labels == 1
    found = [scores >= best_f1_threshold(scores, labels)[0] for scores in (before, after)]

    def f1(weights: Floats) -> list[Floats]:
        return [2 * (weights @ (own & truth)) / (weights @ (own.astype(np.float64) + truth)) for own in found]

    first, second = f1(np.ones((1, len(labels))))
    drawn = [np.subtract(*f1(weights)[::-1]) for weights in resampled(len(labels))]
    low, high = percentiles(np.concatenate(drawn)[:, None])
    return float((second - first)[0]), float(low[0]), float(high[0])
