"""What the stages of pair scoring cost, one after the other in one process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.common import Table
from benchmarks.pair_scoring import files, save_models
from benchmarks.pair_scoring_baselines import measure

ITEMS = 20_000
PAIRS, QUICK_PAIRS = 10_000, 500


def run(*, quick: bool) -> list[Table]:
    """Each stage."""
    note = (
        "Items with real titles, brands, prices and descriptions, random pairs of them, one after the other in one "
        "process. Putting sequences together is part of the scoring by the cross-encoder, where it runs beside the "
        "model; here it is also measured alone. *peak MiB*: resident memory of the process until then."
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        some = files("abt_buy.test" if quick else "*")
        rows, _ = measure("stages", folder, ITEMS, QUICK_PAIRS if quick else PAIRS, *some, tuned=True)
    return [Table("Cost of pair scoring by stage", note, rows)]
