"""Numbers with intervals, in tables that go into the pages of docs/benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from shopvision.evaluation.bootstrap import bootstrap_interval

Floats = NDArray[np.float64]


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown, seen with ``pytest -s``."""
    lines = [header, ["---"] * len(header), *rows]
    sys.stdout.write("\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    sys.stdout.flush()


def over_seeds(values: Floats) -> tuple[float, float]:
    """95 % interval of the mean over seeds (Student's t); of equal values the value itself."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
    return float(low), float(high)


def seeds_cell(values: Floats, sign: str = "") -> str:
    """Mean over seeds, with its interval."""
    low, high = over_seeds(values)
    mean = f"{values.mean():{sign}.3f}"
    return mean if low == high else f"{mean} ({low:{sign}.3f} to {high:{sign}.3f})"


def text_cells(values: Floats, sign: str = "") -> list[str]:
    """Of (texts, metrics) the means, each with its bootstrap interval over texts."""
    low, high = bootstrap_interval(values)
    return [
        f"{value:{sign}.3f} ({a:{sign}.3f} to {b:{sign}.3f})"
        for value, a, b in zip(values.mean(axis=0), low, high, strict=True)
    ]
