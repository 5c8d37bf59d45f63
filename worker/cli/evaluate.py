"""``shopvision evaluate``: how good a trained model is on data it has not seen."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from shopvision.errors import UserError
from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from shopvision.evaluation.bootstrap import Measured
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.fitting.config import DataConfig as MatcherData
    from shopvision.matching.fitting.evaluate import MatchingReport
    from shopvision.selection.clik.config import DataConfig
    from shopvision.selection.clik.data import RankingData

app = typer.Typer(no_args_is_help=True, help="Measure trained models.")

METRICS_FILE = "metrics.json"
PLOT_FILE = "metrics.png"
CURVES_FILE = "curves.png"
ERRORS_FILE = "errors.html"


@app.callback()
def evaluate() -> None:
    """Measure trained models."""


@app.command("ranker")
def ranker(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of `train clik`: takes one split of its data.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test. [default with --config: test]")] = None,
    table_file: Annotated[
        Path | None, typer.Option("--table", help="Exhibition table (CSV or Parquet): takes every row.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Where the table's pictures lie; by default beside it.")] = None,
    label: Annotated[str | None, typer.Option(help="The table's label column.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json and metrics.png.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a ranker: every metric with its 95 % interval beside what chance would give."""
    data, source = _data(config, split, table_file, images, label)
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.images import PictureDoor
    from shopvision.selection.clik.evaluate import evaluate_ranker
    from shopvision.settings import get_settings

    folder = model_folder(model)
    if output is not None:
        _make(output)
    with PictureDoor(get_settings().with_image_roots(source.picture_folders)) as door, _bar() as bar:
        task = bar.add_task("pictures", total=None, visible=False)
        report = evaluate_ranker(
            folder,
            data,
            door,
            device=device,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    if output is not None:
        _write_json(output, report.as_dict())
        by_category = {name: metrics["mrr"] for name, metrics in report.categories.items()}
        title = f"{report.model}: {report.exhibitions:,} exhibitions, {report.pictures:,} pictures"
        plot_evaluation(output / PLOT_FILE, title, report.metrics, by_category, "MRR", units="exhibitions")
    left_out = f", {report.unreadable:,} unreadable ones left out" if report.unreadable else ""
    title = f"{report.model} on {report.exhibitions:,} exhibitions, {report.pictures:,} pictures{left_out}"
    rows = [(name, *_cells(metric)) for name, metric in report.metrics.items()]
    rows += [(f"mrr of {name or 'no category'}", *_cells(of["mrr"])) for name, of in report.categories.items()]
    emit(report.as_dict(), as_json, lambda: table(("metric", "value", "95 % interval", "random", "over"), rows, title))


def _data(
    config: Path | None, split: str | None, table_file: Path | None, images: str | None, label: str | None
) -> tuple[RankingData, DataConfig]:
    """The exhibitions that the options name, and where their pictures come from."""
    if (config is None) == (table_file is None):
        raise UserError("Say what to evaluate on: --config FILE, or --table FILE --label COLUMN, and not both.")
    if config is not None and (images is not None or label is not None):
        raise UserError("--images and --label belong to --table; a configuration names its own.")
    if table_file is not None and split is not None:
        raise UserError("--split belongs to --config; a table is evaluated as it is.")
    if table_file is not None and label is None:
        raise UserError("--table needs --label: the name of its numeric column.")
    from shopvision.selection.clik.config import ClikConfig, DataConfig
    from shopvision.selection.clik.refine import SPLITS
    from shopvision.selection.clik.train import read_splits
    from shopvision.training.config import load_config

    if table_file is not None:
        from shopvision.selection.clik.data import read_table

        source = DataConfig(table=table_file, images=images, label=label)
        return read_table(table_file, label=str(label), images=images), source
    name = split or "test"
    if name not in SPLITS:
        raise UserError(f"There is no split '{name}': choose train, valid or test.")
    settled = load_config(Path(str(config)), ClikConfig)
    data = read_splits(settled)[name]
    if not data.exhibitions:
        raise UserError(f"The split {name} of {config} is empty: raise its share in refine.fractions.")
    return data, settled.data


@app.command("matcher")
def matcher(
    *,
    model: Annotated[str, typer.Option("--model", help="NAME:TAG, or the folder of a model version.")],
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Labelled pairs (JSONL, CSV, Parquet).")] = None,
    items: Annotated[Path | None, typer.Option("--items", help="The items that the pairs name by id.")] = None,
    images: Annotated[str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Pairs it was trained on: tells seen from unseen categories.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of `train matcher`: takes one split of its data.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test. [default with --config: test]")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, metrics.png, curves.png and errors.html.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a pair model at the threshold of its card: every metric with its 95 % interval, and its mistakes."""
    table_of_pairs, seen, source = _pairs(config, split, pairs, items=items, images=images, train=train)
    from shopvision.images import PictureDoor
    from shopvision.matching.fitting.error_page import write_error_page
    from shopvision.matching.fitting.evaluate import evaluate_matcher
    from shopvision.matching.scoring.ensemble import load_scorer
    from shopvision.settings import get_settings

    scorer = load_scorer(model_folder(model), device=device)
    if output is not None:
        _make(output)
    with PictureDoor(get_settings().with_image_roots(source.picture_folders)) as door, _bar() as bar:
        task = bar.add_task("items", total=None, visible=False)
        report = evaluate_matcher(
            scorer,
            table_of_pairs,
            door=door,
            seen=seen,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
        if output is not None:
            _write_json(output, report.to_json())
            _plot_matcher(output, report)
            write_error_page(output / ERRORS_FILE, report, door)
    left_out = f", {report.unreadable:,} with items that it cannot read left out" if report.unreadable else ""
    title = f"{report.model} on {len(report.table):,} pairs{left_out}, threshold {report.thresholds['decision']:.4f}"
    rows = [(name, *_cells(metric)) for name, metric in report.rows()]
    rows.append(("best f1 of any threshold (optimistic)", f"{report.best_f1:.4f}", None, None, len(report.table)))
    emit(report.to_json(), as_json, lambda: table(("metric", "value", "95 % interval", "random", "over"), rows, title))


@app.command("cascade")
def cascade(
    *,
    first: Annotated[str, typer.Option("--first", help="NAME:TAG or folder of a two-tower, which is cheap.")],
    second: Annotated[str, typer.Option("--second", help="NAME:TAG or folder of the model that decides the rest.")],
    valid: Annotated[Path, typer.Option("--valid", help="Labelled pairs to choose the limits on.")],
    pairs: Annotated[Path, typer.Option("--pairs", help="Labelled pairs to measure on.")],
    items: Annotated[Path | None, typer.Option("--items", help="The items that the pairs name by id.")] = None,
    images: Annotated[str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")] = None,
    max_f1_loss: Annotated[
        float, typer.Option(min=0, max=1, help="How much F1 the cascade may cost on the first file.")
    ] = 0.002,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Choose between which probabilities a cheap model passes pairs on to a better one, and measure the effect."""
    from shopvision.images import PictureDoor
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.matching.fitting.cascade_effect import evaluate_cascade
    from shopvision.matching.fitting.config import DataConfig as MatcherData
    from shopvision.matching.scoring.ensemble import load_scorer
    from shopvision.settings import get_settings

    known = None if items is None else read_items(items, images=images)
    chosen_on, measured_on = (read_pairs(file, known, images=images) for file in (valid, pairs))
    cheap, good = (load_scorer(model_folder(model), device=device) for model in (first, second))
    source = MatcherData(pairs=pairs, valid=valid, items=items, images=images)
    with PictureDoor(get_settings().with_image_roots(source.picture_folders)) as door:
        report = evaluate_cascade(cheap, good, chosen_on, measured_on, door=door, max_f1_loss=max_f1_loss)
    low, high = report.limits.low, report.limits.high
    title = (
        f"{report.first} decides up to {low:.4f} and from {high:.4f}, {report.second} the rest: {report.pairs:,} pairs"
    )
    rows: list[tuple[object, ...]] = [
        (name, *(f"{of[name].value:.4f} ({_cells(of[name])[1]})" for of in (report.alone, report.together)))
        for name in report.alone
    ]
    rows += [
        ("asked about", "100.0 %", f"{report.passed_on:.1%}".replace("%", " %")),
        ("seconds", f"{report.seconds_alone:.2f}", f"{report.seconds_together:.2f}"),
    ]
    advice = Text(f"With a job: cascade='{report.parameter}'")
    emit(report.to_json(), as_json, lambda: Group(table(("", "the second alone", "cascade"), rows, title), advice))


def _pairs(
    config: Path | None,
    split: str | None,
    pairs: Path | None,
    *,
    items: Path | None,
    images: str | None,
    train: Path | None,
) -> tuple[PairTable, frozenset[str] | None, MatcherData]:
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
    from shopvision.matching.fitting.config import DataConfig as MatcherData
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.training.config import load_config

    if pairs is not None:
        known = None if items is None else read_items(items, images=images)
        seen = None if train is None else seen_categories(read_pairs(train, known, images=images))
        return read_pairs(pairs, known, images=images), seen, MatcherData(pairs=pairs, items=items, images=images)
    from shopvision.matching.fitting.labelled_pairs import read_splits

    settled = load_config(Path(str(config)), MatcherConfig)
    splits = read_splits(settled)
    name = split or "test"
    if name not in splits:
        raise UserError(f"{config} has no split '{name}': choose {', '.join(splits)}, or name a file with --pairs.")
    return splits[name], seen_categories(splits["train"]), settled.data


def _plot_matcher(output: Path, report: MatchingReport) -> None:
    from shopvision.evaluation.plots import plot_evaluation, plot_pairs
    from shopvision.items.word_overlap import token_jaccard
    from shopvision.matching.fitting.evaluate import BASELINE

    positives = int((report.table.labels == 1).sum())
    title = f"{report.model}: {len(report.table):,} pairs, {positives:,} of them the same item"
    by_category = {name: metrics["f1"] for name, metrics in report.categories.items()}
    plot_evaluation(output / PLOT_FILE, title, report.metrics, by_category, "F1", units="pairs")
    plot_pairs(
        output / CURVES_FILE,
        title,
        report.probabilities,
        report.table.labels,
        thresholds=report.thresholds,
        baselines={BASELINE: token_jaccard(report.table)},
    )


def _write_json(output: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
    (output / METRICS_FILE).write_text(text + "\n", encoding="utf-8")


def model_folder(model: str) -> Path:
    """The folder of ``NAME:TAG``, or the one that is named itself.

    Raises:
        UserError: there is neither.
    """
    from shopvision.models import registry

    if Path(model).is_dir():
        return Path(model)
    if "/" in model:
        raise UserError(f"{model} is no folder: name the folder of a model version, or NAME:TAG.")
    return registry.local_copy(registry.find(model))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): choose another --output.") from None


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=error_console,
    )  # fmt: skip


def _cells(metric: Measured) -> tuple[str | None, str | None, str | None, int]:
    interval = None if math.isnan(metric.low) else f"{metric.low:.4f} - {metric.high:.4f}"
    value, random = (None if math.isnan(number) else f"{number:.4f}" for number in (metric.value, metric.random))
    return value, interval, random, metric.units
