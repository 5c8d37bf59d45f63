"""Several models' probabilities of the same pairs made into one decision; pure functions.

``probabilities`` are (n, m), a column per model, NaN where a model did not score the pair. ``thresholds`` are (m,), or
(n, m) where they depend on the pair (``group_thresholds``); a NaN threshold leaves the model out of that pair. A model
that is left out is neutral: it neither speaks for nor against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from shopvision.errors import UserError
from shopvision.evaluation.calibration import SURENESS
from shopvision.evaluation.pair_metrics import best_f1_threshold

REGULARISATION = 1.0
TOLERANCE, ITERATIONS = 1e-8, 1000  # of the gradient; reached long before the last iteration

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def threshold_margin(probabilities: ArrayLike, thresholds: ArrayLike) -> Floats:
    """(n,) margins ``S = sum(p_i - t_i)`` over the models that scored; "the same item" where S >= 0.

    Not divided by the number of models. As log-odds of a calibration S gives a probability.
    """
    margins, voting = _margins(probabilities, thresholds)
    return np.asarray(np.where(voting, margins, 0.0).sum(axis=1), np.float64)


def f1_vote(probabilities: ArrayLike, thresholds: ArrayLike, f1: ArrayLike) -> tuple[Floats, Floats]:
    """(n,) votes for "different" and (n,) votes for "the same item": each model votes with its F1, (m,).

    A model votes for "the same item" where p_i >= t_i; the pair is the same item where these votes are not fewer.
    """
    margins, voting = _margins(probabilities, thresholds)
    weights = np.where(voting, np.asarray(f1, np.float64), 0.0)
    for_same = voting & (margins >= 0)
    return np.where(for_same, 0.0, weights).sum(axis=1), np.where(for_same, weights, 0.0).sum(axis=1)


def fit_thresholds(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """(m,) threshold of each model's best F1 on the validation pairs that it scored.

    Raises:
        UserError: a model scored no pair of the same item.
    """
    table, truth = _table(probabilities), np.asarray(labels)
    scored = ~np.isnan(table)
    return np.array(
        [
            best_f1_threshold(column[known], truth[known])[0] if known.any() else np.nan
            for column, known in zip(table.T, scored.T, strict=True)
        ]
    )


def fit_group_thresholds(probabilities: ArrayLike, labels: ArrayLike, unseen: Mask) -> Floats:
    """(2, m) thresholds for pairs of seen and of unseen categories, each fitted on its own validation pairs.

    A group that cannot have a best F1, because it holds no pair of the same item or none of different ones, takes the
    thresholds of all pairs.

    Args:
        probabilities: (n, m).
        labels: (n,) 0 or 1.
        unseen: (n,) whether either item's category is absent from training.

    Raises:
        UserError: see ``fit_thresholds``.
    """
    table, truth = _table(probabilities), np.asarray(labels)
    everywhere = fit_thresholds(table, truth)
    result = np.tile(everywhere, (2, 1))
    for row, group in enumerate((~unseen, unseen)):
        for model, column in enumerate(table.T):
            known = group & ~np.isnan(column)
            if len(np.unique(truth[known])) == 2:
                result[row, model] = best_f1_threshold(column[known], truth[known])[0]
    return result


def group_thresholds(unseen: Mask, thresholds: ArrayLike) -> Floats:
    """(n, m) thresholds of each pair, from (n,) its group and (2, m) thresholds of seen and unseen pairs."""
    return np.asarray(thresholds, np.float64)[np.asarray(unseen, np.int64)]


@dataclass(frozen=True)
class LogisticStacking:
    """A logistic regression over the models' log-odds, and further ones for pairs that only some of them scored.

    Attributes:
        weights: (m,).
        centres: (m,) mean log-odds of each model where it scored.
        bias: log-odds of a pair that all models give their centre.
        partial: models, by ascending number -> weights (of these) and bias of a regression over them alone, for pairs
            that exactly these scored. Where there is none for a pair, it is given the centre of what is missing.
    """

    weights: Floats
    centres: Floats
    bias: float
    partial: Mapping[tuple[int, ...], tuple[Floats, float]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        probabilities: ArrayLike,
        labels: ArrayLike,
        *,
        regularisation: float = REGULARISATION,
        also_alone: Iterable[tuple[int, ...]] = (),
    ) -> LogisticStacking:
        """The optimum on validation pairs.

        Args:
            probabilities: (n, m).
            labels: (n,) 0 or 1.
            also_alone: models that may be all that score a pair. They get a regression of their own, as do those that
                are all that score one here. It learns from every pair that they scored.
            regularisation: weight of a quarter of the squared weights beside the loss summed over pairs, so that two
                models that say the same share their weight.

        Raises:
            UserError: all labels are equal, or a model scored no pair.
        """
        from sklearn.linear_model import LogisticRegression

        table, truth = _table(probabilities), np.asarray(labels, np.int64)
        unused = np.flatnonzero(np.isnan(table).all(axis=0))
        if unused.size:
            raise UserError(f"Model {unused[0]} of the ensemble scored no pair: leave it out.")
        if len(np.unique(truth)) < 2:
            raise UserError(f"All {len(truth):,} pairs have one label: stacking needs pairs of both.")
        odds = _log_odds(table)
        centres = np.nanmean(odds, axis=0)

        def optimum(centred: Floats, own: NDArray[np.int64]) -> tuple[Floats, float]:
            model = LogisticRegression(C=2 / regularisation, tol=TOLERANCE, max_iter=ITERATIONS)
            model.fit(centred, own)
            return model.coef_[0], float(model.intercept_[0])

        complete: Mask = np.asarray(~np.isnan(odds).any(axis=1))
        if len(np.unique(truth[complete])) < 2:
            complete[:] = True  # too few to learn from: what is missing is given its centre here, too
        weights, bias = optimum(np.nan_to_num(odds - centres, nan=0.0)[complete], truth[complete])
        partial = {}
        for alone in sorted({*_patterns(odds), *also_alone}):
            columns = list(alone)
            rows = ~np.isnan(odds[:, columns]).any(axis=1)
            if 0 < len(columns) < odds.shape[1] and len(np.unique(truth[rows])) == 2:
                partial[alone] = optimum((odds - centres)[rows][:, columns], truth[rows])
        return cls(weights, centres, bias, partial)

    def log_odds(self, probabilities: ArrayLike) -> Floats:
        """(n,) log-odds of "the same item" from (n, m); finite, also where a probability would round to 1."""
        centred = _log_odds(_table(probabilities)) - self.centres
        result = np.asarray(np.nan_to_num(centred, nan=0.0) @ self.weights + self.bias, np.float64)
        for models, (weights, bias) in self.partial.items():
            has = np.isin(np.arange(centred.shape[1]), models)
            rows = (~np.isnan(centred) == has).all(axis=1)
            result[rows] = centred[rows][:, has] @ weights + bias
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        partial = [
            {"models": list(models), "weights": weights.tolist(), "bias": bias}
            for models, (weights, bias) in self.partial.items()
        ]
        return {"weights": self.weights.tolist(), "centres": self.centres.tolist(), "bias": self.bias,
                "partial": partial}  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LogisticStacking:
        """The inverse of ``to_json``."""
        partial = {
            tuple(map(int, one["models"])): (np.array(one["weights"], float), float(one["bias"]))
            for one in values.get("partial", ())
        }
        weights, centres = np.array(values["weights"], float), np.array(values["centres"], float)
        return cls(weights, centres, float(values["bias"]), partial)


def _patterns(table: Floats) -> set[tuple[int, ...]]:
    """Which models scored a pair, of all pairs."""
    return {tuple(np.flatnonzero(row).tolist()) for row in np.unique(~np.isnan(table), axis=0)}


def _margins(probabilities: ArrayLike, thresholds: ArrayLike) -> tuple[Floats, Mask]:
    """(n, m) distances from the threshold, and where there is one."""
    margins = _table(probabilities) - np.asarray(thresholds, np.float64)
    return margins, ~np.isnan(margins)


def _table(probabilities: ArrayLike) -> Floats:
    table = np.asarray(probabilities, np.float64)
    if table.ndim != 2 or not table.size:
        raise UserError(f"An ensemble needs probabilities of shape (pairs, models), not {table.shape}.")
    return table


def _log_odds(table: Floats) -> Floats:
    return np.asarray(logit(np.clip(table, SURENESS, 1 - SURENESS)), np.float64)
