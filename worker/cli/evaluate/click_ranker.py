"""``shopvision evaluate click-ranker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shopvision.errors import UserError
from worker.cli.evaluate.shared import DeviceOption, SplitOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

if TYPE_CHECKING:
    from shopvision.selection.click.config import DataConfig
    from shopvision.selection.click.data import ClickData
    from shopvision.selection.click.entities import EntityTable

PLOT_FILE = "metrics.png"


def click_ranker(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of `train click-ranker`: takes one split of its data.")
    ] = None,
    split: SplitOption = None,
    clicks: Annotated[Path | None, typer.Option("--clicks", help="Clicks on pictures that it has not seen.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of --clicks: records, pairs or clicks.")] = None,
    images: Annotated[str | None, typer.Option(help="Where the pictures lie; by default beside --clicks.")] = None,
    items: Annotated[Path | None, typer.Option("--items", help="The items that --clicks names by id.")] = None,
    entities: Annotated[Path | None, typer.Option("--entities", help="Entities with pictures and counts.")] = None,
    min_impressions: Annotated[float | None, typer.Option(min=1, help="Leave out what was shown less often.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 leaves intervals out.")] = 2000,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, metrics.png and report.html.")] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a click ranker beside constant answers, recall's score, and itself without the items' entities."""
    given = {"images": images, "items": items, "entities": entities, "min_impressions": min_impressions, "kind": kind}
    data, table, source = _data(config, split, clicks, {name: one for name, one in given.items() if one is not None})
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.selection.click.evaluate import evaluate_click_ranker

    folder = model_folder(model)
    make_folder(output)
    with reading("pictures", source.picture_folders) as (door, on_progress):
        found = evaluate_click_ranker(
            folder, data, table, door,
            order=source.entity_order, device=device, resamples=resamples, on_progress=on_progress,
        )  # fmt: skip
    report = found.summary()
    if output is not None:
        plot_evaluation(
            output / PLOT_FILE, report.title, found.metrics, dict(found.tiers), "accuracy by impressions", units="pairs"
        )
        write_report(output, report, [output / PLOT_FILE])
    emit_report(report, as_json)


def _data(
    config: Path | None, split: str | None, clicks: Path | None, options: dict[str, Any]
) -> tuple[ClickData, EntityTable, DataConfig]:
    """The pairs that the options name, what is known of entities, and where pictures come from."""
    if (config is None) == (clicks is None):
        raise UserError("Say what to evaluate on: --config FILE, or --clicks FILE --kind KIND, and not both.")
    if config is not None and options:
        raise UserError(
            f"--{next(iter(options)).replace('_', '-')} belongs to --clicks; a configuration names its own."
        )
    if clicks is not None and split is not None:
        raise UserError("--split belongs to --config; a file of clicks is evaluated as it is.")
    from shopvision.selection.click.config import ClickConfig, DataConfig
    from shopvision.selection.click.splits import read_splits
    from shopvision.training.config import load_config

    if clicks is not None:
        if options.get("kind") not in {"records", "pairs", "clicks"}:
            raise UserError("--clicks needs --kind: records, pairs or clicks.")
        source = DataConfig.model_validate({"clicks": clicks, "fractions": (1, 0, 0), **options})
        splits = read_splits(source)
        return splits.train, splits.table, source
    settled = load_config(Path(str(config)), ClickConfig)
    name = split or "test"
    if name not in {"train", "valid", "test"}:
        raise UserError(f"There is no split '{name}': choose train, valid or test.")
    splits = read_splits(settled.data)
    if name not in splits.by_name:
        raise UserError(f"The split {name} of {config} is empty: raise its share in data.fractions.")
    return splits.by_name[name], splits.table, settled.data
