"""Probabilities that can be taken at their word, and thresholds chosen from them instead of by feel.

Both are fitted on validation pairs, never on those that a model is trained or measured on, and are kept in its card as
plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, log_expit, ndtri

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import CONFIDENCE
from shopvision.evaluation.pair_metrics import Floats, checked, sweep

SAME_PRECISION = 0.95
DIFFERENT_POSITIVES = 0.02
# Nothing is certain: with 0 and 1 out of reach, also in float32, the thresholds 0 and 1 mean "never".
SURENESS = 1e-7
_SMALLEST_SCALE = 1e-3  # per standard deviation of the logits


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """Scale and shift of log-odds that make the labels most likely (Platt 1999), by L-BFGS in float64.

    The targets are Platt's ``(positives + 1) / (positives + 2)`` and ``1 / (negatives + 2)``, which keep the scale
    finite where the pairs are separated perfectly. The scale is positive, so the order of pairs never changes.

    Args:
        logits: (n,) log-odds of "the same item", as the model says them.
        labels: (n,) 0 or 1.

    Returns:
        ``{"method": "temperature", "scale": a, "shift": b}``; the probability is ``sigmoid(a * logit + b)``.

    Raises:
        UserError: see ``pair_metrics.checked``; or all labels are equal.
    """
    scores, truth = _both_labels(logits, labels)
    positives, negatives = truth.sum(), (~truth).sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = scores.mean(), scores.std() or 1.0
    standard = (scores - centre) / spread

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        adjusted = parameters[0] * standard + parameters[1]
        loss = -(target * log_expit(adjusted) + (1 - target) * log_expit(-adjusted)).mean()
        error = expit(adjusted) - target
        return float(loss), np.array([(error * standard).mean(), error.mean()])

    found = minimize(
        loss_and_gradient,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_SMALLEST_SCALE, None), (None, None)],
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    ).x
    scale = float(found[0] / spread)
    return {"method": "temperature", "scale": scale, "shift": float(found[1] - scale * centre)}


def fit_isotonic(logits: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """The rising step function of log-odds that is nearest to the labels (pool adjacent violators), as its knots.

    Needs more pairs than ``fit_temperature``, some 1,000, and gives many pairs one probability. No pair becomes surer
    than one mistake in n + 2.

    Args:
        logits: (n,).
        labels: (n,).

    Returns:
        ``{"method": "isotonic", "logits": [...], "probabilities": [...]}``, both rising; between knots the probability
        is interpolated, outside it stays.

    Raises:
        UserError: as ``fit_temperature``.
    """
    scores, truth = _both_labels(logits, labels)
    values, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    fitted = isotonic_regression(np.bincount(group, truth) / sizes, weights=sizes)
    borders = np.unique(np.concatenate([fitted.blocks[:-1], fitted.blocks[1:] - 1]))
    least = 1 / (len(scores) + 2)
    probabilities = np.clip(fitted.x[borders], least, 1 - least)
    return {"method": "isotonic", "logits": values[borders].tolist(), "probabilities": probabilities.tolist()}


def apply(calibration: Mapping[str, Any], logits: ArrayLike) -> Floats:
    """Probabilities of log-odds; strictly between 0 and 1, also when rounded to float32.

    Args:
        calibration: from ``fit_temperature`` or ``fit_isotonic``; ``{"method": "none"}`` is the plain sigmoid.
        logits: any shape.

    Raises:
        UserError: the calibration is of another form.
    """
    scores = np.asarray(logits, np.float64)
    try:
        match calibration["method"]:
            case "none":
                result = expit(scores)
            case "temperature":
                result = expit(float(calibration["scale"]) * scores + float(calibration["shift"]))
            case "isotonic":
                result = np.interp(scores, calibration["logits"], calibration["probabilities"])
            case other:
                raise UserError(f"There is no calibration '{other}': choose temperature, isotonic or none.")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The calibration {dict(calibration)} is not whole ({error}): fit it again.") from None
    return np.asarray(np.clip(result, SURENESS, 1 - SURENESS), np.float64)


def wilson_interval(successes: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Lower and upper bound of a share that was seen ``successes`` times in ``trials`` (Wilson 1927); 0 and 1 of none.

    Args:
        successes: any shape.
        trials: of the same shape.
        confidence: of both bounds together.
    """
    hits, count = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = float(ndtri((1 + confidence) / 2))
    some = np.maximum(count, 1)
    middle = (hits + z**2 / 2) / (count + z**2)
    half = z / (count + z**2) * np.sqrt(hits * (some - hits) / some + z**2 / 4)
    empty = count == 0
    return np.where(empty, 0.0, np.maximum(middle - half, 0)), np.where(empty, 1.0, np.minimum(middle + half, 1))


def choose_thresholds(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    same_precision: float = SAME_PRECISION,
    different_positives: float = DIFFERENT_POSITIVES,
    confidence: float = CONFIDENCE,
) -> dict[str, float]:
    """The three thresholds of a card, from validation pairs, with nothing promised that so few pairs cannot show.

    ``decision`` is the threshold of the best F1. ``same`` is the lowest threshold, at or above it, where the lower
    Wilson bound of the precision of all pairs at or above is ``same_precision``; ``different`` the highest, at or below
    ``decision``, where the upper bound of the share of positives among all pairs below is ``different_positives``.
    What lies between is for a person, and so is a gap between the pairs of both sides, where nothing was seen: ``same``
    and ``different`` are the probabilities of the last pairs that they were shown to hold for, ``decision`` stands
    halfway between two. Where no threshold keeps the promise, ``same`` is 1 and ``different`` 0: with
    few pairs everything goes to review (95 % precision takes at least 73 pairs without a mistake; 2 % take 189).

    The promise holds for pairs that are drawn as the validation pairs were: a blocking that lets more negatives through
    lowers precision.

    Args:
        probabilities: (n,) calibrated, in (0, 1).
        labels: (n,) 0 or 1.
        same_precision: what share of the pairs called "same" must be right.
        different_positives: what share of the pairs called "different" may be the same item.
        confidence: of the Wilson intervals.

    Returns:
        ``same``, ``different``, ``decision``; ``different <= decision <= same``.

    Raises:
        UserError: all labels are equal; a wanted share outside 0 .. 1; or see ``pair_metrics.checked``.
    """
    for name, value in {"same_precision": same_precision, "different_positives": different_positives}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}: give a share from 0 to 1.")
    scores, truth = _both_labels(probabilities, labels)
    curve = sweep(scores, truth)
    best = int(np.argmax(curve.f1))
    precision, _ = wilson_interval(curve.found, curve.predicted, confidence)
    below = curve.count - curve.predicted
    _, missed = wilson_interval(curve.positives - curve.found, below, confidence)
    strict = np.flatnonzero(precision[: best + 1] >= same_precision)
    lenient = best + np.flatnonzero(missed[best:] <= different_positives)
    same, different = 1.0, 0.0
    if strict.size:
        same = float(scores[scores >= curve.thresholds[strict[-1]]].min())
    if lenient.size:
        different = float(scores[scores < curve.thresholds[lenient[0]]].max(initial=0.0))
    return {"same": same, "different": different, "decision": float(curve.thresholds[best])}


def check_thresholds(thresholds: Mapping[str, float]) -> dict[str, float]:
    """The three thresholds of a card, in order.

    Raises:
        UserError: one is missing, is no number from 0 to 1, or they are out of order; the message says which.
    """
    values = {}
    for name in ("different", "decision", "same"):
        if name not in thresholds:
            raise UserError(f"The threshold '{name}' is missing: give same, different and decision.")
        values[name] = float(thresholds[name])
        if not 0 <= values[name] <= 1:
            raise UserError(f"The threshold '{name}' is {values[name]}: give a number from 0 to 1.")
    if not values["different"] <= values["decision"] <= values["same"]:
        told = " and ".join(f"{name} {value:g}" for name, value in values.items())
        raise UserError(f"The thresholds {told} are out of order: different <= decision <= same.")
    return values


def verdicts(probabilities: ArrayLike, *, same: float, different: float) -> NDArray[np.str_]:
    """(n,) ``same``, ``different`` or ``review`` of (n,) probabilities; NaN is for review.

    Args:
        probabilities: calibrated.
        same: this and above is ``same``, also where both thresholds are one.
        different: this and below is ``different``.
    """
    scores = np.asarray(probabilities, np.float64)
    return np.where(scores >= same, "same", np.where(scores <= different, "different", "review"))


def _both_labels(values: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    scores, truth = checked(values, labels)
    if truth.all() or not truth.any():
        which = "the same item" if truth.all() else "different items"
        raise UserError(f"All {len(truth):,} validation pairs are {which}: give pairs of both labels.")
    return scores, truth
