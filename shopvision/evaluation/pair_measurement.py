"""Every measure of a model's pairs at once, with its interval and what chance would give."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure, percentiles, resampled
from shopvision.evaluation.pair_metrics import Floats, Mask, average_precision, checked, log_losses, roc_auc
from shopvision.evaluation.reliability import reliability


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
    entropy = float(log_losses(np.full(len(truth), rate), truth).mean())
    # name: value of each pair, its weight, chance. F1 = 2 TP / (found + positives) is a weighted mean as well.
    columns: dict[str, tuple[NDArray[np.generic], NDArray[np.generic], float]] = {
        "precision": (truth, found, rate),
        "recall": (found, truth, share),
        "f1": (found & truth, found.astype(np.int64) + truth, 2 * share * rate / ((share + rate) or 1.0)),
        "accuracy": (found == truth, np.ones(len(truth)), share * rate + (1 - share) * (1 - rate)),
        "brier": ((scores - truth) ** 2, np.ones(len(truth)), rate * (1 - rate)),
        "log_loss": (log_losses(scores, truth), np.ones(len(truth)), entropy),
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
    values = [roc_auc(scores, truth), average_precision(scores, truth)]
    low = high = np.full(2, np.nan)
    if resamples and not np.isnan(values).any():
        drawn = resampled(len(scores), resamples=resamples, seed=seed)
        tied = _tied(scores, truth)
        low, high = percentiles(np.concatenate([_ranking(block, *tied) for block in drawn]))
    random = (0.5, float(truth.mean()))
    rows = zip(values, low.tolist(), high.tolist(), random, strict=True)
    return {name: Measured(*row, len(scores)) for name, row in zip(("roc_auc", "average_precision"), rows, strict=True)}


def _tied(scores: Floats, truth: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
    """(n,) order by falling score, (k,) where each different score starts in it, (n,) labels in that order."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(0, np.flatnonzero(np.diff(scores[order])) + 1), truth[order]


def _ranking(drawn: Floats, order: NDArray[np.int64], starts: NDArray[np.int64], truth: Mask) -> Floats:
    """(resamples, 2) area under the ROC curve and average precision, pair i counting ``drawn[:, i]`` times.

    What scikit-learn computes with ``sample_weight``, but for all draws in one go: the pairs are sorted once instead of
    once for each draw and measure, which makes 2,000 draws of 3,000 pairs a matter of 0.1 s instead of 15 s.
    """
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
