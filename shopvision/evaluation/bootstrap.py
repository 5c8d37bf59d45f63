"""How sure a mean is: intervals by resampling, without any assumption on how the values are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
_LARGEST_BLOCK = 4_000_000


def resampled(count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Draw ``count`` rows with replacement, ``resamples`` times (Efron 1979).

    Yields:
        (draws, count) how often each row was drawn, in blocks of bounded size that add up to ``resamples`` draws. The
        same seed gives the same draws.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _LARGEST_BLOCK // count)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def percentiles(
    draws: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(metrics,) bounds between which ``confidence`` of the (resamples, metrics) values lie; NaN is left out."""
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def bootstrap_interval(
    values: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap of means: the rows are drawn again with replacement, ``resamples`` times.

    All columns see the same draws, so one call serves all metrics of an evaluation.

    Args:
        values: (n, metrics), a row per independent unit (an exhibition, not a picture). NaN: the row says nothing of
            this metric, and neither mean nor draw counts it.
        weights: (n, metrics) not negative, for means of units of different size; by default all equal.
        confidence: share of the resampled means that lie inside.
        resamples: how often to draw.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        (metrics,) lower and (metrics,) upper bound; NaN where fewer than two rows have a value, because one value says
        nothing of its spread.
    """
    known = ~np.isnan(values)
    shares = known.astype(np.float64) if weights is None else np.where(known, weights, 0.0)
    weighted = np.where(known, values, 0.0) * shares
    means = np.empty((resamples, values.shape[1]))
    done = 0
    for drawn in resampled(len(values), resamples=resamples, seed=seed):
        total = drawn @ shares
        means[done : done + len(drawn)] = np.divide(
            drawn @ weighted, total, out=np.full(total.shape, np.nan), where=total > 0
        )
        done += len(drawn)
    enough = known.sum(axis=0) >= 2
    means[:, ~enough] = 0.0
    low, high = percentiles(means, confidence)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


@dataclass(frozen=True)
class Measured:
    """A metric's mean with its bootstrap interval, beside what chance alone would give.

    Attributes:
        value: mean over the units; NaN where none has a value.
        low: lower bound of the interval; NaN where it is unknown.
        high: upper bound.
        random: expectation of an order (a guess) made at random.
        units: how many units have a value.
    """

    value: float
    low: float
    high: float
    random: float
    units: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which knows no NaN: unknown ones are None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def measure(
    values: NDArray[np.float64],
    random: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Measured]:
    """The mean of each column, with interval and chance level.

    Args:
        values: (n, metrics), see ``bootstrap_interval``.
        random: (n, metrics) expectations under chance; those of rows without a value are not counted.
        weights: see ``bootstrap_interval``.
        resamples: 0 leaves intervals out (NaN), which takes no time.
        seed: of the resampling.
    """
    known = ~np.isnan(values)
    shares = known.astype(np.float64) if weights is None else np.where(known, weights, 0.0)
    total = shares.sum(axis=0)

    def means(of: NDArray[np.float64]) -> NDArray[np.float64]:
        summed = (np.where(known, of, 0.0) * shares).sum(axis=0)
        result = np.full(len(total), np.nan)
        np.divide(summed, total, out=result, where=total > 0)
        return result

    unknown = np.full(values.shape[1], np.nan)
    low, high = bootstrap_interval(values, weights, resamples=resamples, seed=seed) if resamples else (unknown, unknown)
    columns = (column.tolist() for column in (means(values), low, high, means(random), known.sum(axis=0)))
    return [Measured(*column) for column in zip(*columns, strict=True)]
