"""How often several models decide alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def agreement(decided: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the units that two models decide alike, of those that both decide.

    Args:
        decided: (n, m) 0 or 1; NaN where a model does not decide a unit.

    Returns:
        (m, m), symmetric, 1 on the diagonal; NaN where two models have no unit in common.
    """
    yes, no = decided == 1, decided == 0
    counts = [side.astype(np.float64) for side in (yes, no, yes | no)]
    alike, both = counts[0].T @ counts[0] + counts[1].T @ counts[1], counts[2].T @ counts[2]
    shares = np.full(both.shape, np.nan)
    np.divide(alike, both, out=shares, where=both > 0)
    return shares
