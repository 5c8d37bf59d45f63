"""Probabilities that can be taken at their word, and the verdicts that thresholds make of them.

Calibrations are fitted on validation pairs, never on those that a model is trained or measured on, and are kept in its
card as plain values. ``thresholds`` chooses thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import expit, log_expit, log_softmax

from shopvision.errors import UserError
from shopvision.evaluation.pair_metrics import Floats, checked

# Nothing is certain: with 0 and 1 out of reach, also in float32, the thresholds 0 and 1 mean "never".
SURENESS = 1e-7
_SMALLEST_SCALE = 1e-3  # per standard deviation of the logits
_TEMPERATURES = (0.05, 20.0)


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


def fit_softmax_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """What logits of several classes are divided by so that the labels become most likely (Guo et al. 2017, 4.2).

    Args:
        logits: (n, classes).
        labels: (n,) numbers of classes.

    Returns:
        From 0.05 to 20; the likelihood has one maximum. The order of classes never changes.

    Raises:
        UserError: nothing to fit on, or a logit that is not finite.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if not len(scores) or scores.ndim != 2 or len(scores) != len(truth) or not np.isfinite(scores).all():
        raise UserError(f"{scores.shape} logits and {truth.shape} labels: give as many, finite ones, at least one.")
    rows = np.arange(len(truth))

    def loss(logarithm: float) -> float:
        return -float(log_softmax(scores / np.exp(logarithm), axis=1)[rows, truth].mean())

    bounds = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x))


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
