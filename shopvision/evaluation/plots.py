"""Pictures of an evaluation: metrics against chance, one metric by category, curves of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.pair_metrics import Curve, Floats, confusion, sweep
from shopvision.evaluation.reliability import Reliability, reliability
from shopvision.reports.row_writer import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CATEGORIES = 30
_INK, _QUIET, _MODEL, _CHANCE = "#1f2430", "#6b7280", "#2563eb", "#d97706"
_ROW_INCHES, _FRAME_INCHES = 0.32, 1.5


def plot_evaluation(
    path: Path,
    title: str,
    metrics: Mapping[str, Measured],
    categories: Mapping[str, Measured],
    category_metric: str,
    *,
    units: str,
) -> None:
    """Write a PNG: on the left every metric, on the right ``category_metric`` of each category, the best first.

    Args:
        path: of the PNG.
        title: over both.
        metrics: name -> value, in the order to show.
        categories: category -> value; of very many the largest are shown. With fewer than two there is no right side.
        category_metric: what the right side shows, in words.
        units: what was measured, in the plural.

    Raises:
        UserError: the file cannot be written.
    """
    largest = sorted(categories.items(), key=lambda item: (-item[1].units, item[0]))[:MOST_CATEGORIES]
    shown = sorted(largest, key=lambda item: (-item[1].value, item[0]))
    sides = 2 if len(shown) > 1 else 1
    rows = max(len(metrics), len(shown) if sides == 2 else 0)
    figure = _figure(title, 6.2 * sides, rows * _ROW_INCHES + _FRAME_INCHES)
    axes = figure.subplots(1, sides, squeeze=False)[0]
    names = [name.replace("_", " ") for name in metrics]
    _dots(axes[0], names, list(metrics.values()), f"all {units}", rows)
    if sides == 2:
        left_out = len(categories) - len(shown)
        subtitle = f"{category_metric} by category" + (f" (the largest; {left_out} more)" if left_out else "")
        labels = [f"{_short(name) or 'none'} ({measured.units})" for name, measured in shown]
        _dots(axes[1], labels, [measured for _, measured in shown], subtitle, rows)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    _write(figure, path)


def plot_pairs(
    path: Path,
    title: str,
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    thresholds: Mapping[str, float],
    baselines: Mapping[str, Floats],
) -> None:
    """Write a PNG: precision and recall with the chosen thresholds, how true probabilities are, and where they lie.

    Args:
        path: of the PNG.
        title: over all three.
        probabilities: (n,).
        labels: (n,) 0 or 1.
        thresholds: ``same``, ``different`` and ``decision``.
        baselines: name -> (n,) scores of the same pairs, whose curves are drawn beside.

    Raises:
        UserError: the file cannot be written.
    """
    figure = _figure(title, 15.6, 5.0)
    left, middle, right = figure.subplots(1, 3)
    for name, scores in baselines.items():
        _curve(left, sweep(scores, labels), _CHANCE, name.replace("_", " "))
    _curve(left, sweep(probabilities, labels), _MODEL, "model")
    for name, marker in {"different": "v", "decision": "o", "same": "^"}.items():
        threshold = thresholds[name]
        at = confusion(probabilities, labels, threshold)
        if not math.isnan(at.precision):
            text = f"{name} at {threshold:.3f}: P {at.precision:.3f}, R {at.recall:.3f}, F1 {at.f1:.3f}"
            left.scatter(at.recall, at.precision, s=46, marker=marker, color=_INK, zorder=4, label=text)
    _frame(left, "precision by recall, at thresholds chosen on validation", "recall", "precision")
    bins = reliability(probabilities, labels)
    _diagonal(middle, bins, "pairs")
    _frame(middle, f"reliability: ECE {bins.ece:.4f}, {bins.noise:.4f} by chance", "probability", "share of positives")
    _histogram(right, np.asarray(probabilities, np.float64), np.asarray(labels) == 1, thresholds)
    _frame(right, "pairs by probability, the part for review shaded", "probability", "pairs (logarithmic)")
    right.set_ylim(0.7, None)
    _write(figure, path)


def plot_classes(
    path: Path, title: str, confusion: NDArray[np.int64], classes: Sequence[str], bins: Reliability, *, units: str
) -> None:
    """Write a PNG: which class was said of which, and how far the probability of what was said is true.

    Args:
        path: of the PNG.
        title: over both.
        confusion: (k, k) true class by said class.
        classes: their k names.
        bins: of the probability of the class that was said, and whether it was right.
        units: what was measured, in the plural.

    Raises:
        UserError: the file cannot be written.
    """
    side = max(4.0, len(classes) * _ROW_INCHES + _FRAME_INCHES)
    figure = _figure(title, side + 7.2, max(side, 5.0))
    left, right = figure.subplots(1, 2, width_ratios=[side, 6.2])
    _matrix(left, confusion, [_short(name) for name in classes])
    _diagonal(right, bins, units)
    _frame(
        right, f"reliability: ECE {bins.ece:.4f}, {bins.noise:.4f} by chance", "probability", "share of right answers"
    )
    _write(figure, path)


def plot_members(
    path: Path,
    title: str,
    names: Sequence[str],
    agreement: NDArray[np.float64],
    metrics: Mapping[str, Mapping[str, Measured]],
) -> None:
    """Write a PNG: which members of an ensemble decide alike, and what is measured of each.

    Args:
        path: of the PNG.
        title: over all.
        names: of the m members.
        agreement: (m, m) shares of the pairs that two decide alike; NaN where they have none in common.
        metrics: what it is -> member -> value; a member may be missing.

    Raises:
        UserError: the file cannot be written.
    """
    shown = [_short(name) for name in names]
    rows = len(names) * _ROW_INCHES
    side = max(4.0, rows * 1.3 + _FRAME_INCHES)
    figure = _figure(title, side + 4.8 * len(metrics), max(side, rows + _FRAME_INCHES))
    axes = figure.subplots(1, 1 + len(metrics), width_ratios=[side] + [4.8] * len(metrics))
    different = agreement[~np.eye(len(names), dtype=bool)]
    lowest = float(np.nanmin(different)) if np.isfinite(different).any() else 0.0
    axes[0].imshow(agreement, cmap="Blues", vmin=min(lowest, 0.99), vmax=1)
    for row, column in np.argwhere(~np.isnan(agreement)).tolist():
        share = agreement[row, column]
        colour = "white" if share > (1 + lowest) / 2 else _INK
        axes[0].text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=colour)
    _name_both(axes[0], shown, "share of the pairs that two decide alike")
    for place, (what, of) in zip(axes[1:], metrics.items(), strict=True):
        _dots(place, [_short(name) for name in of], list(of.values()), what, len(names))
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format="png")


def _figure(title: str, width: float, height: float) -> Figure:
    # Not through pyplot, which would keep the figure and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=_INK)
    return figure


def _curve(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    # Between two cuts precision is not linear in recall; a step promises nothing that no threshold gives.
    axes.step([0, *curve.recall], [curve.precision[0], *curve.precision], where="pre", color=colour, label=label)


def _matrix(axes: Axes, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """A row for each true class, as shares of it."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MOST_CATEGORIES:
        for row, column in np.argwhere(confusion).tolist():
            colour = "white" if shares[row, column] > 0.5 else _INK
            axes.text(column, row, f"{confusion[row, column]}", ha="center", va="center", fontsize=7, color=colour)
    _name_both(
        axes, names if len(names) <= MOST_CATEGORIES else (), "true class by said class, shaded by share of the row"
    )
    axes.set_xlabel("said", fontsize=8.5, color=_QUIET)
    axes.set_ylabel("true", fontsize=8.5, color=_QUIET)


def _name_both(axes: Axes, names: Sequence[str], title: str) -> None:
    """Rows and columns of a matrix have one list of names."""
    if names:
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, loc="left", fontsize=9.5, color=_QUIET)
    axes.tick_params(axis="both", length=0, labelcolor=_INK)
    for edge in ("top", "right", "left", "bottom"):
        axes.spines[edge].set_visible(False)


def _diagonal(axes: Axes, bins: Reliability, units: str) -> None:
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--", label="perfectly calibrated")
    spread = 1.96 * np.sqrt(bins.expected * (1 - bins.expected) / bins.counts)
    axes.errorbar(
        bins.expected, bins.observed, yerr=spread, fmt="o", markersize=5, color=_MODEL, ecolor="#bfd0f7",
        label=f"{len(bins.counts)} bins of about {int(bins.counts.mean())} {units}, 95 % by chance",
    )  # fmt: skip
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)


def _histogram(axes: Axes, probabilities: Floats, truth: NDArray[np.bool_], thresholds: Mapping[str, float]) -> None:
    edges = np.linspace(0, 1, 41).tolist()
    axes.hist(probabilities[~truth], edges, color=_CHANCE, histtype="step", linewidth=1.6, label="different items")
    axes.hist(probabilities[truth], edges, color=_MODEL, histtype="step", linewidth=1.6, label="the same item")
    axes.axvspan(thresholds["different"], thresholds["same"], color=_QUIET, alpha=0.14, linewidth=0)
    axes.set_yscale("log")


def _frame(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=_QUIET)
    axes.set_xlabel(x, fontsize=8.5, color=_QUIET)
    axes.set_ylabel(y, fontsize=8.5, color=_QUIET)
    axes.tick_params(axis="both", length=0, labelsize=8, labelcolor=_QUIET)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7.5, frameon=False)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _dots(axes: Axes, names: Sequence[str], measured: Sequence[Measured], title: str, rows: int) -> None:
    """One row per name, from the top: interval as a line, value as a dot with its number, chance as a mark."""
    places = range(len(names))
    values = [0.0 if math.isnan(one.value) else one.value for one in measured]
    for place, one in zip(places, measured, strict=True):
        if not math.isnan(one.low):
            axes.plot([one.low, one.high], [place, place], color=_MODEL, linewidth=2.2, alpha=0.45, zorder=2)
    axes.scatter(values, places, s=30, color=_MODEL, zorder=3, label="model, with 95 % interval")
    if not all(math.isnan(one.random) for one in measured):
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
