"""``shopvision evaluate detector``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.evaluate.shared import DeviceOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

PLOT_FILE = "metrics.png"


def detector(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    boxes: Annotated[Path, typer.Option("--boxes", help="COCO JSON of photos that it has not seen.")],
    images: Annotated[str | None, typer.Option(help="Where the photos lie; by default beside the file.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 leaves intervals out.")] = 200,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, metrics.png and report.html.")] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a detector: mean average precision and recall, by size and by class."""
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.fashion.detection.coco import read_boxes
    from shopvision.fashion.detection.config import DataConfig
    from shopvision.fashion.detection.evaluate import evaluate_detector
    from shopvision.fashion.detection.predict import load_detector
    from shopvision.models.version_folder import read_card

    folder = model_folder(model)
    loaded = load_detector(folder, device=device)
    data = read_boxes(boxes, images=images, classes=loaded.labels)
    make_folder(output)
    source = DataConfig(boxes=boxes, images=images)
    with reading("pictures", source.picture_folders) as (door, on_progress):
        found = evaluate_detector(
            loaded, data, door, model=read_card(folder).spec, resamples=resamples, on_progress=on_progress
        )
    report = found.summary()
    if output is not None:
        by_class = {part.name: part.metrics["map_50"] for part in report.parts}
        plot_evaluation(output / PLOT_FILE, report.title, report.metrics, by_class, "mAP50", units="pictures")
        write_report(output, report, [output / PLOT_FILE])
    emit_report(report, as_json)
