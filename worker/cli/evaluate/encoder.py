"""``shopvision evaluate encoder``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.evaluate.shared import DeviceOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

PLOT_FILE = "metrics.png"


def encoder(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    pairs: Annotated[Path, typer.Option("--pairs", help="Training-pairs file that it has not seen.")],
    gallery_from: Annotated[
        Path | None, typer.Option(help="Items whose leading pictures are searched among as well.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Where the pairs' pictures lie; by default beside them.")] = None,
    gallery_images: Annotated[
        str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another encoder, NAME:TAG or folder, to be measured on the same.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 leaves intervals out.")] = 2000,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, metrics.png and report.html.")] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure an encoder: whether anchors find their product, with 95 % intervals beside what chance would give."""
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.fashion.encoding.config import DataConfig
    from shopvision.fashion.encoding.evaluate import evaluate_encoder
    from shopvision.fashion.encoding.pairs import pairs_of_file, pairs_of_items

    folder = model_folder(model)
    other = None if against is None else model_folder(against)
    data = pairs_of_file(pairs, images)
    folders = DataConfig(pairs=pairs, images=images).picture_folders
    if gallery_from is not None:
        data = replace(data, others=pairs_of_items(gallery_from, gallery_images).others)
        folders += DataConfig(items=gallery_from, images=gallery_images).picture_folders
    make_folder(output)
    with reading("pictures", folders) as (door, on_progress):
        found = evaluate_encoder(
            folder, data, door, against=other, device=device, resamples=resamples, on_progress=on_progress
        )
    report = found.summary()
    if output is not None:
        by_category = {name or "none": metrics["recall_1"] for name, metrics in found.categories.items()}
        plot_evaluation(output / PLOT_FILE, report.title, found.metrics, by_category, "recall at 1", units="products")
        write_report(output, report, [output / PLOT_FILE])
    emit_report(report, as_json)
