"""``embedding_refresh`` with Swin-B, where the model is nearly everything and compiling pays: ours and the limits."""

from __future__ import annotations

from benchmarks.common import Table
from benchmarks.embedding_refresh import LARGE_MODEL_CASE, Case, rates_of


def run(*, quick: bool) -> list[Table]:
    """One case; quickly, a few pictures and no waiting for the compiler."""
    case = Case(LARGE_MODEL_CASE.model, LARGE_MODEL_CASE.form, 64, long=False) if quick else LARGE_MODEL_CASE
    return [rates_of([case], repetitions=1)]
