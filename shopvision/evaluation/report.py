"""The one shape of an evaluation: what was measured, on which data, how well, and beside what chance would give.

Every room's own report has a ``summary()`` of this shape, so that commands, files and pages say the same of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shopvision.evaluation.bootstrap import Measured

COLUMNS = ("metric", "value", "95 % interval", "random", "over")

Metrics = Mapping[str, Measured]
Row = tuple[str, str | None, str | None, str | None, int]


@dataclass(frozen=True)
class Part:
    """Metrics of a part of the data, or of something else on the same data.

    Attributes:
        group: what kind of part: ``category``, ``baseline``, ...
        name: which one.
        metrics: name -> value.
        shown: the metrics that a table has room for; by default all.
    """

    group: str
    name: str
    metrics: Metrics
    shown: Sequence[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"group": self.group, "name": self.name, "metrics": plain(self.metrics)}

    def rows(self) -> Iterator[Row]:
        """As in ``EvaluationReport``, with the part named."""
        label = f"{self.group} {self.name}".rstrip()
        return (_row(f"{label}: {name}", self.metrics[name]) for name in self.shown or self.metrics)


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What was found of a model.

    Attributes:
        name: of the model: ``name:tag``.
        data: what it was measured on, with a digest where there is one.
        counts: how many of what, the first what all metrics are over: ``{"pairs": 300, "positives": 20}``.
        metrics: name -> value with its interval and the random expectation.
        parts: the same of parts of the data, and of baselines.
        facts: further values that stand for themselves: thresholds, seconds.
        notes: sentences that a reader of the numbers should know.
    """

    name: str
    data: str
    counts: Mapping[str, int]
    metrics: Metrics
    parts: Sequence[Part] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """The model, and the counts that are not 0."""
        first, *others = self.counts.items()
        counts = ", ".join(f"{count:,} {what}" for what, count in [first, *(one for one in others if one[1])])
        return f"{self.name} on {counts}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unknown numbers are None."""
        return {
            "name": self.name,
            "data": self.data,
            "counts": dict(self.counts),
            "metrics": plain(self.metrics),
            "parts": [part.as_dict() for part in self.parts],
            "facts": dict(self.facts),
            "notes": list(self.notes),
        }

    def rows(self) -> list[Row]:
        """All metrics in the order of ``COLUMNS``; None where nothing is known."""
        return [
            *(_row(name, measured) for name, measured in self.metrics.items()),
            *(row for part in self.parts for row in part.rows()),
        ]

    def fact_rows(self) -> list[tuple[str, str]]:
        """(name, value) of the facts, one level of nesting resolved."""
        rows = []
        for name, value in self.facts.items():
            several = value.items() if isinstance(value, Mapping) else [(None, value)]
            rows += [(name if key is None else f"{name}: {key}", _text(one)) for key, one in several]
        return rows


def plain(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """Plain values for JSON."""
    return {name: measured.as_dict() for name, measured in metrics.items()}


def without_interval(metrics: Mapping[str, float], units: int) -> dict[str, Measured]:
    """Values that nothing more is known of than over how many units they were taken."""
    return {name: Measured(value, math.nan, math.nan, math.nan, units) for name, value in metrics.items()}


def _row(name: str, measured: Measured) -> Row:
    interval = None if math.isnan(measured.low) else f"{measured.low:.4f} - {measured.high:.4f}"
    value, random = (None if math.isnan(one) else f"{one:.4f}" for one in (measured.value, measured.random))
    return name, value, interval, random, measured.units


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
