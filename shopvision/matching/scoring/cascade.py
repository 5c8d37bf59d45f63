"""A cheap model decides the clear pairs, a better one the rest.

Both models' probabilities are calibrated, so they can be compared: what the first decides is at least as clear as what
the second would call ``same`` or ``different``, and only the second's pairs can come up for review.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.errors import UserError
from shopvision.matching.scoring.combined_scorer import CombinedScorer

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.matching.scoring.batching import ShouldStop
    from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows

# Finer steps would fit the validation pairs and nothing else.
_STEPS = 400


@dataclass(frozen=True)
class CascadeLimits:
    """What the first model decides: probabilities of at most ``low`` and of at least ``high``.

    Attributes:
        low: 0 where it decides nothing to be different.
        high: 1 where it decides nothing to be the same.
        passed_on: share of the validation pairs between the two.
        f1: of the cascade on them.
        f1_second: of the second model alone.
    """

    low: float
    high: float
    passed_on: float
    f1: float
    f1_second: float


def choose_cascade_limits(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    thresholds: dict[str, float],
    *,
    max_f1_loss: float = 0.002,
) -> CascadeLimits:
    """The limits that pass on the fewest pairs while F1 stays within ``max_f1_loss`` of the second model's.

    Tried are all pairs of limits at the borders between validation pairs; at 400 quantiles where these are more. Limits
    never lie inside the second model's zone of review, so that no clear pair comes up for review.

    Args:
        first: (n,) calibrated probabilities of the cheap model, in (0, 1).
        second: (n,) of the better model.
        labels: (n,) 0 or 1.
        thresholds: of the better model's card: ``same``, ``different``, ``decision``.
        max_f1_loss: 0 keeps the F1 of the second model, or betters it.

    Raises:
        UserError: the arrays are of different lengths, or no label is 1.
    """
    cheap, good = np.asarray(first, np.float64), np.asarray(second, np.float64)
    truth = np.asarray(labels) == 1
    if not cheap.shape == good.shape == truth.shape or not truth.any():
        raise UserError("A cascade needs both models' probabilities of the same labelled pairs, some of them positive.")
    order = np.argsort(cheap, kind="stable")
    cheap, truth = cheap[order], truth[order]
    called = good[order] >= thresholds["decision"]
    count = len(cheap)
    # Sums over the first k pairs, for every k.
    positives, right, wrong = (
        np.concatenate([[0], np.cumsum(flags)]) for flags in (truth, called & truth, called & ~truth)
    )
    middles = (cheap[1:] + cheap[:-1]) / 2
    borders = np.flatnonzero(np.diff(cheap) > 0) + 1
    below = _spread(borders[middles[borders - 1] <= thresholds["different"]])
    above = _spread(borders[middles[borders - 1] >= thresholds["same"]])
    # Pairs before ``below`` are different, from ``above`` on the same; 0 and ``count`` leave a limit out.
    below, above = np.append(0, below)[:, None], np.append(above, count)[None, :]
    found = positives[count] - positives[above] + right[above] - right[below]
    mistaken = (count - above) - (positives[count] - positives[above]) + wrong[above] - wrong[below]
    f1 = 2 * found / (positives[count] + found + mistaken)
    alone = 2 * right[count] / (positives[count] + right[count] + wrong[count])
    passed_on = above - below
    allowed = (f1 >= alone - max_f1_loss - 1e-12) & (passed_on >= 0)
    # Of equally few pairs passed on, the better F1; leaving both limits out is always allowed.
    worth = np.where(allowed, -passed_on.astype(np.float64) + f1 / 2, -np.inf)
    row, column = np.unravel_index(int(np.argmax(worth)), worth.shape)
    low, high = int(below[row, 0]), int(above[0, column])
    return CascadeLimits(
        low=float(middles[low - 1]) if low else 0.0,
        high=float(middles[high - 1]) if high < count else 1.0,
        passed_on=(high - low) / count,
        f1=float(f1[row, column]),
        f1_second=float(alone),
    )


def _spread(borders: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(borders) <= _STEPS:
        return borders
    return borders[np.linspace(0, len(borders) - 1, _STEPS).round().astype(np.int64)]


class Cascade(CombinedScorer):
    """Two scorers as one. Not thread-safe.

    Attributes:
        low: the first decides probabilities of at most this,
        high: and of at least this.
        passed_on: how many pairs of the last ``score`` the second was asked about.
    """

    def __init__(
        self,
        first: BaseScorer,
        second: BaseScorer,
        low: float,
        high: float,
        *,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        """Put them one behind the other.

        Args:
            first: a model with item vectors.
            second: asked about what the first leaves open.
            low: see above.
            high: see above.
            thresholds: ``different`` and ``same``, where others than those of the second's card make the verdicts.

        Raises:
            UserError: the limits are out of order, or inside the zone of review; the first has no item
                vectors; or the two want pictures prepared in two ways.
        """
        if not 0 <= low <= high <= 1:
            raise UserError(f"Cascade low={low}, high={high}: give 0 <= low <= high <= 1.")
        zone = second.card.thresholds if thresholds is None else thresholds
        different, same = zone["different"], zone["same"]
        if low > different or high < same:
            raise UserError(
                f"Cascade low={low}, high={high}: pairs from {different:g} to {same:g} are for review, so give low and "
                "high outside of that."
            )
        if first.vector_dimension is None:
            raise UserError("The first model of a cascade reads both items at once: use one with item vectors.")
        super().__init__([first, second])
        self.low, self.high = low, high
        self.card = second.card
        self.passed_on = 0

    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        result = self._score_by(0, items, left, right, vectors=vectors, should_stop=should_stop)
        # A pair that was not reached is not undecided.
        doubtful: NDArray[Any] = np.flatnonzero((result > self.low) & (result < self.high))
        self.passed_on = len(doubtful)
        result[doubtful] = self._score_by(
            1, items, left[doubtful], right[doubtful], vectors=vectors, should_stop=should_stop
        )
        return result
