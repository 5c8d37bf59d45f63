"""Metrics of one class for each unit: accuracy, precision and recall by class, intervals, a constant answer beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure, percentiles, resampled
from shopvision.evaluation.pair_metrics import Floats

BY_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ClassMetrics:
    """What was found over n units of k classes.

    Attributes:
        confusion: (k, k) int64, true class by said class.
        metrics: ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that occur), ``macro_f1`` (of those
            that occur or are said), ``loss`` (mean negative log-likelihood).
        by_class: class number -> ``precision``, ``recall`` and ``f1``; NaN where it does not occur or is never said.
        constant_accuracy: of always saying the most frequent class.
        most_frequent: its number.
    """

    confusion: NDArray[np.int64]
    metrics: Mapping[str, Measured]
    by_class: Mapping[int, Mapping[str, Measured]]
    constant_accuracy: Measured
    most_frequent: int


def measure_classes(truth: ArrayLike, probabilities: ArrayLike, *, resamples: int = RESAMPLES) -> ClassMetrics:
    """Compare what is said, the class of the highest probability, with what is true.

    Args:
        truth: (n,) numbers of classes.
        probabilities: (n, k), rows sum to 1.
        resamples: of the bootstrap over units; 0 leaves intervals out.

    Raises:
        UserError: no unit, or shapes that do not belong together.
    """
    labels, scores = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    if not len(labels) or scores.ndim != 2 or len(scores) != len(labels):
        raise UserError(f"{len(labels)} labels and {len(scores)} rows of probabilities: give as many, at least one.")
    count, classes = scores.shape
    said, rows = scores.argmax(1), np.arange(count)
    is_true, is_said = np.zeros(scores.shape), np.zeros(scores.shape)
    is_true[rows, labels], is_said[rows, said] = 1, 1
    losses = -np.log(np.maximum(scores[rows, labels], np.finfo(np.float32).tiny))
    columns = (is_true * is_said, is_true, is_said, losses[:, None])
    values = _values(*(column.sum(axis=0, keepdims=True) for column in columns))
    low = high = np.full(values.shape[1], math.nan)
    if resamples and count > 1:
        draws = [_values(*(drawn @ column for column in columns)) for drawn in resampled(count, resamples=resamples)]
        drawn_values = np.concatenate(draws)
        known = ~np.isnan(drawn_values).all(axis=0)
        low, high = low.copy(), high.copy()
        low[known], high[known] = percentiles(drawn_values[:, known])
    shares = is_true.mean(axis=0)
    most_frequent = int(shares.argmax())
    # A guess that says each class as often as it occurs.
    random = [float((shares**2).sum()), 1 / max(1, int((shares > 0).sum())), math.nan, math.nan]
    measured = [
        Measured(float(value), float(least), float(most), by_chance, count)
        for value, least, most, by_chance in zip(
            values[0], low, high, [*random, *[math.nan] * (3 * classes)], strict=True
        )
    ]
    names = ("accuracy", "balanced_accuracy", "macro_f1", "loss")
    return ClassMetrics(
        confusion=np.rint(is_true.T @ is_said).astype(np.int64),
        metrics=dict(zip(names, measured[:4], strict=True)),
        by_class={
            number: {name: measured[4 + place * classes + number] for place, name in enumerate(BY_CLASS)}
            for number in range(classes)
        },
        constant_accuracy=measure(is_true[:, [most_frequent]], np.full((count, 1), np.nan), resamples=resamples)[0],
        most_frequent=most_frequent,
    )


def _values(hits: Floats, true: Floats, said: Floats, losses: Floats) -> Floats:
    """(draws, 4 + 3 k): the metrics of all, then precision, recall and F1 of every class.

    Args:
        hits: (draws, k) units of a class of which it was said.
        true: (draws, k) units of it.
        said: (draws, k) units of which it was said.
        losses: (draws, 1) summed.
    """
    count = true.sum(axis=1, keepdims=True)
    precision, recall = _ratio(hits, said), _ratio(hits, true)
    f1 = _ratio(2 * hits, true + said)
    means = [_mean_of_known(values) for values in (recall, f1)]
    overall = [hits.sum(axis=1, keepdims=True) / count, *means, losses / count]
    return np.concatenate([*overall, precision, recall, f1], axis=1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratios = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratios, where=whole > 0)
    return ratios


def _mean_of_known(values: Floats) -> Floats:
    known = ~np.isnan(values)
    means: Floats = np.where(known, values, 0.0).sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    return means
