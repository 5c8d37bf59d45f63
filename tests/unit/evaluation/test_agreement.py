"""How often models decide alike, counted by hand."""

from __future__ import annotations

import numpy as np

from shopvision.evaluation.agreement import agreement


def test_shares_are_of_what_both_decide() -> None:
    nan = np.nan
    decided = np.array([[1, 1, nan], [0, 1, nan], [1, 1, nan], [0, 0, nan], [nan, 1, 0]])
    expected = [[1, 3 / 4, nan], [3 / 4, 1, 0], [nan, 0, 1]]
    np.testing.assert_allclose(agreement(decided), expected)
