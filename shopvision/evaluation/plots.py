"""Pictures of an evaluation: each metric with its interval against chance, and one metric by category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.evaluation.bootstrap import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CATEGORIES = 30
_INK, _QUIET, _MODEL, _CHANCE = "#1f2430", "#6b7280", "#2563eb", "#d97706"
_ROW_INCHES, _FRAME_INCHES = 0.32, 1.5


def plot_evaluation(
    path: Path,
    title: str,
    metrics: Mapping[str, Measured],
    categories: Mapping[str, Measured],
    category_metric: str,
) -> None:
    """Write a PNG: on the left every metric, on the right ``category_metric`` of each category, the best first.

    Args:
        path: of the PNG.
        title: over both.
        metrics: name -> value, in the order to show.
        categories: category -> value; of very many the largest are shown. With fewer than two there is no right side.
        category_metric: what the right side shows, in words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = sorted(categories.items(), key=lambda item: (-item[1].units, item[0]))[:MOST_CATEGORIES]
    shown = sorted(largest, key=lambda item: (-item[1].value, item[0]))
    sides = 2 if len(shown) > 1 else 1
    rows = max(len(metrics), len(shown) if sides == 2 else 0)
    # Not through pyplot, which would keep the figure and look for a display.
    figure = Figure(figsize=(6.2 * sides, rows * _ROW_INCHES + _FRAME_INCHES), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=_INK)
    axes = figure.subplots(1, sides, squeeze=False)[0]
    names = [name.replace("_", " ") for name in metrics]
    _dots(axes[0], names, list(metrics.values()), "all exhibitions", rows)
    if sides == 2:
        left_out = len(categories) - len(shown)
        subtitle = f"{category_metric} by category" + (f" (the largest; {left_out} more)" if left_out else "")
        labels = [f"{_short(name) or 'none'} ({measured.units})" for name, measured in shown]
        _dots(axes[1], labels, [measured for _, measured in shown], subtitle, rows)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path)


def _dots(axes: Axes, names: Sequence[str], measured: Sequence[Measured], title: str, rows: int) -> None:
    """One row per name, from the top: interval as a line, value as a dot with its number, chance as a mark."""
    places = range(len(names))
    values = [0.0 if math.isnan(one.value) else one.value for one in measured]
    for place, one in zip(places, measured, strict=True):
        if not math.isnan(one.low):
            axes.plot([one.low, one.high], [place, place], color=_MODEL, linewidth=2.2, alpha=0.45, zorder=2)
    axes.scatter(values, places, s=30, color=_MODEL, zorder=3, label="model, with 95 % interval")
    axes.scatter(
        [one.random for one in measured], places, s=70, marker="|", color=_CHANCE, linewidths=2, zorder=2,
        label="random expectation",
    )  # fmt: skip
    right = max([*values, *(one.high for one in measured if not math.isnan(one.high)), 0.05])
    for place, one in zip(places, measured, strict=True):
        text = "no value" if math.isnan(one.value) else f"{one.value:.3f}"
        axes.text(right * 1.04, place, text, va="center", fontsize=8, color=_INK)
    axes.set_xlim(0, right * 1.18)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(list(places), names, fontsize=8.5, color=_INK)
    axes.set_title(title, loc="left", fontsize=9.5, color=_QUIET)
    axes.tick_params(axis="both", length=0)
    axes.tick_params(axis="x", labelsize=8, labelcolor=_QUIET)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _short(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
