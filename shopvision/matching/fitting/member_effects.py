"""What the members of an ensemble do for it: each alone, the ensemble without it, and how often two decide alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.evaluation.agreement import agreement
from shopvision.evaluation.bootstrap import RESAMPLES, Measured
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.report import Part

PLOT_FILE = "members.png"
METRICS = ("f1", "average_precision", "roc_auc")

Floats = NDArray[np.float64]
Metrics = dict[str, Measured]


@dataclass(frozen=True)
class MemberEffects:
    """Of m members.

    Attributes:
        names: of the members.
        alone: of each, ``METRICS`` at its own threshold, of the pairs that it scored; empty where none of these is the
            same item, or all are.
        without: likewise of the ensemble that goes without it.
        agreement: (m, m) share of the pairs which two members decide alike, of those that both scored; NaN without any.
    """

    names: tuple[str, ...]
    alone: tuple[Metrics, ...]
    without: tuple[Metrics, ...]
    agreement: Floats

    def parts(self) -> list[Part]:
        """Parts of an evaluation."""
        kinds = (("member", self.alone), ("without", self.without))
        return [Part(kind, name, metrics) for kind, of in kinds for name, metrics in zip(self.names, of, strict=True)]

    def facts(self) -> dict[str, Any]:
        """The agreement as nested plain values, each pair of members once."""
        return {
            "decided alike": {
                name: {
                    other: None if np.isnan(share) else round(float(share), 4)
                    for other, share in zip(self.names[place + 1 :], self.agreement[place, place + 1 :], strict=True)
                }
                for place, name in enumerate(self.names[:-1])
            }
        }

    def plot(self, path: Path, title: str) -> None:
        """Write a PNG.

        Raises:
            UserError: the file cannot be written.
        """
        from shopvision.evaluation.plots import plot_members

        alone, without = (
            {name: one["f1"] for name, one in zip(self.names, of, strict=True) if one}
            for of in (self.alone, self.without)
        )
        plot_members(path, title, self.names, self.agreement, {"F1 alone": alone, "F1 of the others": without})


def measure_members(
    names: Sequence[str],
    probabilities: Floats,
    labels: NDArray[np.int8],
    *,
    decisions: Sequence[float],
    combine: Callable[[Floats], Floats],
    decision: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MemberEffects:
    """Measure members on labelled pairs.

    Args:
        names: of m members.
        probabilities: (n, m); NaN where a member did not score a pair.
        labels: (n,) 0 or 1.
        decisions: (m,) threshold of each.
        combine: makes (n,) probabilities of the ensemble from (n, m); NaN where no member scored a pair.
        decision: threshold of the ensemble.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the bootstrap.
    """

    def of(scores: Floats, threshold: float) -> Metrics:
        known = ~np.isnan(scores)
        if len(np.unique(labels[known])) < 2:
            return {}
        found = measure_pairs(scores[known], labels[known], threshold, resamples=resamples, seed=seed)
        return {name: found[name] for name in METRICS}

    def without(number: int) -> Floats:
        others = probabilities.copy()
        others[:, number] = np.nan
        return combine(others)

    thresholds = np.asarray(decisions, np.float64)
    decided = np.where(np.isnan(probabilities), np.nan, probabilities >= thresholds)
    return MemberEffects(
        names=tuple(names),
        alone=tuple(of(column, threshold) for column, threshold in zip(probabilities.T, decisions, strict=True)),
        without=tuple(of(without(number), decision) for number in range(len(names))),
        agreement=agreement(decided),
    )
