"""Drawing without replacement in proportion to weights.

Exponential race: item i arrives at E_i / w_i with E_i exponential, and the first to arrive are what drawing one by one
in proportion to the remaining weights would give (Efraimidis and Spirakis, 2006), without a loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TIE_BREAK = 1e-8


def tie_broken(labels: NDArray[Any], generator: np.random.Generator) -> NDArray[np.float64]:
    """Labels as positive weights, equal ones in random order: label + U * 1e-8 with U in (0, 1]; (n,) float64."""
    weights: NDArray[np.float64] = labels + (1.0 - generator.random(len(labels))) * TIE_BREAK
    return weights


def weighted_sample(weights: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """``count`` distinct places, in no particular order.

    Args:
        weights: (n,) not negative; a weight of 0 is drawn only where the others do not suffice.
        count: at most n.
    """
    with np.errstate(divide="ignore"):
        arrivals = generator.standard_exponential(len(weights)) / weights
    if count >= len(weights):
        return np.arange(len(weights))
    return np.argpartition(arrivals, count)[:count] if count else np.empty(0, np.intp)
