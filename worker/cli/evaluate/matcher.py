"""``shopvision evaluate matcher``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shopvision.errors import UserError
from worker.cli.evaluate.shared import DeviceOption, ImagesOption, ItemsOption, SplitOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

if TYPE_CHECKING:
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.fitting.config import DataConfig
    from shopvision.matching.fitting.evaluate import MatchingReport

PLOT_FILE = "metrics.png"
CURVES_FILE = "curves.png"
ERRORS_FILE = "errors.html"


def matcher(
    *,
    model: Annotated[str, typer.Option("--model", help="NAME:TAG, or the folder of a model version.")],
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Labelled pairs (JSONL, CSV, Parquet).")] = None,
    items: ItemsOption = None,
    images: ImagesOption = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Pairs it was trained on: tells seen from unseen categories.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of `train matcher`: takes one split of its data.")
    ] = None,
    split: SplitOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, report.html with its plots, and errors.html.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a pair model at the threshold of its card: every metric with its 95 % interval, and its mistakes."""
    pairs_to_measure, seen, source = _pairs(config, split, pairs, items=items, images=images, train=train)
    from shopvision.evaluation.report_files import write_report
    from shopvision.matching.fitting.error_page import write_error_page
    from shopvision.matching.fitting.evaluate import evaluate_matcher
    from shopvision.matching.scoring.ensemble import load_scorer

    scorer = load_scorer(model_folder(model), device=device)
    make_folder(output)
    with reading("items", source.picture_folders) as (door, on_progress):
        found = evaluate_matcher(scorer, pairs_to_measure, door=door, seen=seen, on_progress=on_progress)
        report = found.summary()
        if output is not None:
            write_report(output, report, _plot(output, found, report.title))
            write_error_page(output / ERRORS_FILE, found, door)
    emit_report(report, as_json)


def _pairs(
    config: Path | None,
    split: str | None,
    pairs: Path | None,
    *,
    items: Path | None,
    images: str | None,
    train: Path | None,
) -> tuple[PairTable, frozenset[str] | None, DataConfig]:
    """The pairs that the options name, the categories seen in training, and where the pictures come from."""
    if (config is None) == (pairs is None):
        raise UserError("Say what to evaluate on: --pairs FILE, or --config FILE, and not both.")
    if config is not None and (items is not None or images is not None or train is not None):
        raise UserError("--items, --images and --train belong to --pairs; a configuration names its own.")
    if pairs is not None and split is not None:
        raise UserError("--split belongs to --config; a file of pairs is evaluated as it is.")
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.items.pair_splits import seen_categories
    from shopvision.matching.fitting.config import DataConfig, MatcherConfig
    from shopvision.training.config import load_config

    if pairs is not None:
        known = None if items is None else read_items(items, images=images)
        seen = None if train is None else seen_categories(read_pairs(train, known, images=images))
        return read_pairs(pairs, known, images=images), seen, DataConfig(pairs=pairs, items=items, images=images)
    from shopvision.matching.fitting.labelled_pairs import read_splits

    settled = load_config(Path(str(config)), MatcherConfig)
    splits = read_splits(settled)
    name = split or "test"
    if name not in splits:
        raise UserError(f"{config} has no split '{name}': choose {', '.join(splits)}, or name a file with --pairs.")
    return splits[name], seen_categories(splits["train"]), settled.data


def _plot(output: Path, found: MatchingReport, title: str) -> list[Path]:
    from shopvision.evaluation.plots import plot_evaluation, plot_pairs
    from shopvision.items.word_overlap import token_jaccard
    from shopvision.matching.fitting.evaluate import BASELINE
    from shopvision.matching.fitting.member_effects import PLOT_FILE as MEMBERS_PLOT

    by_category = {name: metrics["f1"] for name, metrics in found.categories.items()}
    plot_evaluation(output / PLOT_FILE, title, found.metrics, by_category, "F1", units="pairs")
    plot_pairs(
        output / CURVES_FILE,
        title,
        found.probabilities,
        found.table.labels,
        thresholds=found.thresholds,
        baselines={BASELINE: token_jaccard(found.table)},
    )
    plots = [output / PLOT_FILE, output / CURVES_FILE]
    if found.members is not None:
        plots.append(output / MEMBERS_PLOT)
        found.members.plot(plots[-1], f"Members of {title}")
    return plots
