"""``shopvision evaluate``: how good a trained model is on data it has not seen."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shopvision.errors import UserError
from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from shopvision.evaluation.bootstrap import Measured
    from shopvision.ranking.config import DataConfig
    from shopvision.ranking.data import RankingData

app = typer.Typer(no_args_is_help=True, help="Measure trained models.")

METRICS_FILE = "metrics.json"
PLOT_FILE = "metrics.png"


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
    from shopvision.ranking.evaluate import evaluate_ranker
    from shopvision.ranking.train import allowing_pictures
    from shopvision.settings import get_settings

    folder = _folder(model)
    if output is not None:
        _make(output)
    with PictureDoor(allowing_pictures(get_settings(), source)) as door, _bar() as bar:
        task = bar.add_task("pictures", total=None, visible=False)
        report = evaluate_ranker(
            folder,
            data,
            door,
            device=device,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    if output is not None:
        values = json.dumps(report.as_dict(), ensure_ascii=False, indent=2, allow_nan=False)
        (output / METRICS_FILE).write_text(values + "\n", encoding="utf-8")
        by_category = {name: metrics["mrr"] for name, metrics in report.categories.items()}
        title = f"{report.model}: {report.exhibitions:,} exhibitions, {report.pictures:,} pictures"
        plot_evaluation(output / PLOT_FILE, title, report.metrics, by_category, "MRR")
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
    from shopvision.ranking.config import ClikConfig, DataConfig
    from shopvision.ranking.refine import SPLITS
    from shopvision.ranking.train import read_splits
    from shopvision.training.config import load_config

    if table_file is not None:
        from shopvision.ranking.data import read_table

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


def _folder(model: str) -> Path:
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


def _cells(metric: Measured) -> tuple[str | None, str | None, str, int]:
    interval = None if math.isnan(metric.low) else f"{metric.low:.4f} - {metric.high:.4f}"
    value = f"{metric.value:.4f}" if metric.units else None
    return value, interval, f"{metric.random:.4f}", metric.units
