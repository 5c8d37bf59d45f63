"""``shopvision evaluate ranker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shopvision.errors import UserError
from worker.cli.evaluate.shared import DeviceOption, SplitOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

if TYPE_CHECKING:
    from shopvision.selection.clik.config import DataConfig
    from shopvision.selection.clik.data import RankingData

PLOT_FILE = "metrics.png"


def ranker(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of `train clik`: takes one split of its data.")
    ] = None,
    split: SplitOption = None,
    table_file: Annotated[
        Path | None, typer.Option("--table", help="Exhibition table (CSV or Parquet): takes every row.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Where the table's pictures lie; by default beside it.")] = None,
    label: Annotated[str | None, typer.Option(help="The table's label column.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, metrics.png and report.html.")] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a ranker: every metric with its 95 % interval beside what chance would give."""
    data, source = _data(config, split, table_file, images, label)
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.selection.clik.evaluate import evaluate_ranker

    folder = model_folder(model)
    make_folder(output)
    with reading("pictures", source.picture_folders) as (door, on_progress):
        found = evaluate_ranker(folder, data, door, device=device, on_progress=on_progress)
    report = found.summary()
    if output is not None:
        by_category = {name: metrics["mrr"] for name, metrics in found.categories.items()}
        plot_evaluation(output / PLOT_FILE, report.title, found.metrics, by_category, "MRR", units="exhibitions")
        write_report(output, report, [output / PLOT_FILE])
    emit_report(report, as_json)


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
