"""``shopvision evaluate classifier``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.evaluate.shared import DeviceOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

PLOT_FILE = "metrics.png"
CLASSES_FILE = "classes.png"


def classifier(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", help="Pictures that it has not seen: a folder for each class in a folder, or a file of rows."
        ),
    ],
    images: Annotated[str | None, typer.Option(help="Where the file's pictures lie; by default beside it.")] = None,
    picture: Annotated[str, typer.Option(help="The file's column of pictures.")] = "picture",
    label: Annotated[str, typer.Option(help="The file's column of classes.")] = "label",
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 leaves intervals out.")] = 2000,
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, metrics.png, classes.png and report.html.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a thumbnail classifier: accuracy, each class, what is taken for what, and how true probabilities are."""
    from shopvision.evaluation.plots import plot_classes, plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.fashion.thumbnails.classifier import load_classifier
    from shopvision.fashion.thumbnails.config import DataConfig
    from shopvision.fashion.thumbnails.data import read_labelled
    from shopvision.fashion.thumbnails.evaluate import evaluate_classifier
    from shopvision.models.version_folder import read_card

    folder = model_folder(model)
    loaded = load_classifier(folder, device=device)
    source = DataConfig(pictures=labels, images=images, picture=picture, label=label)
    data = read_labelled(labels, images=images, columns=source.columns, classes=loaded.labels)
    make_folder(output)
    with reading("pictures", source.picture_folders) as (door, on_progress):
        found = evaluate_classifier(
            loaded, data, door, model=read_card(folder).spec, resamples=resamples, on_progress=on_progress
        )
    report = found.summary()
    if output is not None:
        by_class = {name: found.found.by_class[number]["f1"] for number, name in enumerate(found.classes)}
        plot_evaluation(output / PLOT_FILE, report.title, found.found.metrics, by_class, "F1", units="pictures")
        plot_classes(
            output / CLASSES_FILE, report.title, found.found.confusion, found.classes, found.bins, units="pictures"
        )
        write_report(output, report, [output / PLOT_FILE, output / CLASSES_FILE])
    emit_report(report, as_json)
