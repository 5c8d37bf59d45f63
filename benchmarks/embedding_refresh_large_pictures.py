"""``embedding_refresh`` with pictures of two megapixels, where decoding is much of the work."""

from __future__ import annotations

from benchmarks.common import Table
from benchmarks.embedding_refresh import (
    CASE,
    DATA_LOADER,
    HUGGING_FACE,
    LITE0,
    QUICK_CASE,
    REPETITIONS,
    Case,
    tables_of,
)

GOALS = {HUGGING_FACE: 5, DATA_LOADER: 4}
PICTURES = 600


def run(*, quick: bool) -> list[Table]:
    """One case; the model alone does not see how large the files are, so its settings are not all tried again."""
    tried = [setting for setting in CASE.settings if setting.batch_size in {8, 32}]
    if quick:
        return tables_of(Case(LITE0, 128, large=True, goals=GOALS, settings=QUICK_CASE.settings), 1, quick=True)
    return tables_of(Case(LITE0, PICTURES, large=True, goals=GOALS, settings=tried), REPETITIONS)
