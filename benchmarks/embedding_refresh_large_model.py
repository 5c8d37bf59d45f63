"""``embedding_refresh`` with Swin-B, where the model is nearly everything: ours and the limit."""

from __future__ import annotations

from benchmarks import limits
from benchmarks.common import Table
from benchmarks.embedding_refresh import LIMIT, SWIN, Case, tables_of

GOALS = {LIMIT: 0.9}
PICTURES, QUICK_PICTURES = 256, 32


def run(*, quick: bool) -> list[Table]:
    """One case."""
    # Compiled, a setting takes minutes to make; where workers run the network compiled, ours may be ahead of the limit.
    settings = limits.settings(quick=quick, ways=(limits.EAGER,))
    pictures = QUICK_PICTURES if quick else PICTURES
    case = Case(SWIN, pictures, large=False, goals=GOALS, settings=settings, ways=())
    return tables_of(case, 1, quick=quick)
