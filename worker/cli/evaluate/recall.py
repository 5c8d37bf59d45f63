"""``shopvision evaluate recall``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shopvision.errors import UserError
from worker.cli.evaluate.shared import DeviceOption, make_folder, reading
from worker.cli.model_folder import model_folder
from worker.cli.output import JsonFlag, emit_report

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.selection.recall.evaluate import RecallEvaluation

PLOT_FILE = "metrics.png"


class Protocol(StrEnum):
    """Published ways to measure."""

    POI500 = "poi500"


def recall(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME:TAG, or the folder of a model version.")],
    *,
    items: Annotated[
        Path | None, typer.Option("--items", help="Items that it has not seen: each title looks for its pictures.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Or pairs that it has not seen, with text and picture.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Where the pictures lie; by default beside the file.")] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="poi500: the published one, with --places and --images.")
    ] = None,
    places: Annotated[
        Path | None, typer.Option("--places", help="Of poi500: the file of places and pictures, seven fields a row.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0 leaves intervals out.")] = 2000,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, metrics.png and report.html.")] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="HTML page of the texts found worst, with all scored pictures.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a recall model: whether texts find their pictures, with 95 % intervals beside what chance would give."""
    from shopvision.evaluation.plots import plot_evaluation
    from shopvision.evaluation.report_files import write_report
    from shopvision.reports.gallery import require_place

    if protocol is None and (items is None) == (pairs is None):
        raise UserError("Say what to evaluate on: --items FILE, --pairs FILE, or --protocol poi500; one of them.")
    if protocol is not None and (items is not None or pairs is not None):
        raise UserError("--items and --pairs do not go with --protocol, which brings its own data.")
    if (places is not None) != (protocol is not None):
        raise UserError("--protocol poi500 and --places FILE belong together.")
    if page is not None:
        require_place(page)
    folder = model_folder(model)
    if places is not None:
        found = _by_protocol(folder, places, images, device=device, resamples=resamples, output=output, page=page)
    else:
        found = _on_own_data(folder, items, pairs, images, device=device, resamples=resamples, output=output, page=page)
    report = found.summary()
    if output is not None:
        plot_evaluation(output / PLOT_FILE, report.title, found.metrics, {}, "hit rate", units="texts")
        write_report(output, report, [output / PLOT_FILE])
    emit_report(report, as_json)


def _by_protocol(
    folder: Path,
    places: Path,
    images: str | None,
    *,
    device: str | None,
    resamples: int,
    output: Path | None,
    page: Path | None,
) -> RecallEvaluation:
    from shopvision.selection.recall.evaluate import evaluate_places
    from shopvision.selection.recall.poi_rows import read_poi_rows

    if images is None or "://" in images:
        raise UserError("--protocol poi500 reads a local folder of pictures: give --images DIR.")
    rows = read_poi_rows(places)
    make_folder(output)
    with reading("pictures", (Path(images),)) as (door, on_progress):
        found = evaluate_places(
            folder, rows, Path(images), door, device=device, resamples=resamples, on_progress=on_progress
        )
        _write_page(folder, found, page, door)
    return found


def _on_own_data(
    folder: Path,
    items: Path | None,
    pairs: Path | None,
    images: str | None,
    *,
    device: str | None,
    resamples: int,
    output: Path | None,
    page: Path | None,
) -> RecallEvaluation:
    from shopvision.selection.recall.card import text_form_of
    from shopvision.selection.recall.config import DataConfig
    from shopvision.selection.recall.data import read_items, read_pairs
    from shopvision.selection.recall.evaluate import evaluate_recall

    source = DataConfig(items=items, pairs=pairs, images=images)
    if pairs is not None:
        data = read_pairs(pairs, images)
    else:
        data = read_items(source.file, images, form=text_form_of(folder))
    make_folder(output)
    with reading("pictures", source.picture_folders) as (door, on_progress):
        found = evaluate_recall(folder, data, door, device=device, resamples=resamples, on_progress=on_progress)
        _write_page(folder, found, page, door)
    return found


def _write_page(folder: Path, found: RecallEvaluation, page: Path | None, door: PictureDoor) -> None:
    """While the door to the pictures is open."""
    from shopvision.models.version_folder import read_card
    from shopvision.selection.recall.card import SCORE
    from shopvision.selection.recall.page import write_recall_page

    if page is not None:
        write_recall_page(found, page, least=read_card(folder).thresholds.get(SCORE), door=door)
