"""``shopvision evaluate cascade``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.evaluate.shared import DeviceOption, ImagesOption, ItemsOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report


def cascade(
    *,
    first: Annotated[str, typer.Option("--first", help="NAME:TAG or folder of a two-tower, which is cheap.")],
    second: Annotated[str, typer.Option("--second", help="NAME:TAG or folder of the model that decides the rest.")],
    valid: Annotated[Path, typer.Option("--valid", help="Labelled pairs to choose the limits on.")],
    pairs: Annotated[Path, typer.Option("--pairs", help="Labelled pairs to measure on.")],
    items: ItemsOption = None,
    images: ImagesOption = None,
    max_f1_loss: Annotated[
        float, typer.Option(min=0, max=1, help="How much F1 the cascade may cost on the first file.")
    ] = 0.002,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json and report.html.")] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Choose between which probabilities a cheap model passes pairs on to a better one, and measure the effect."""
    from shopvision.evaluation.report_files import write_report
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.matching.fitting.cascade_effect import evaluate_cascade
    from shopvision.matching.fitting.config import DataConfig
    from shopvision.matching.scoring.ensemble import load_scorer

    known = None if items is None else read_items(items, images=images)
    chosen_on, measured_on = (read_pairs(file, known, images=images) for file in (valid, pairs))
    cheap, good = (load_scorer(model_folder(model), device=device) for model in (first, second))
    make_folder(output)
    source = DataConfig(pairs=pairs, valid=valid, items=items, images=images)
    with reading("items", source.picture_folders) as (door, _):
        found = evaluate_cascade(cheap, good, chosen_on, measured_on, door=door, max_f1_loss=max_f1_loss)
    report = found.summary()
    if output is not None:
        write_report(output, report)
    emit_report(report, as_json)
