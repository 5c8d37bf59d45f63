"""``shopvision selections``: the pictures that represent items, shown, written out, and as a page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from worker.cli.output import JsonFlag, emit, table

if TYPE_CHECKING:
    from shopvision.selection.item_pictures.reading import SelectionHistory

app = typer.Typer(no_args_is_help=True, help="The pictures that represent items.")


@app.command()
def show(item: Annotated[str, typer.Argument(help="The item's id.")], as_json: JsonFlag = False) -> None:
    """Show an item's pictures by each pair of models that selected some, the newest first."""
    from shopvision.selection.item_pictures.reading import selections_of

    found = selections_of(item)
    told = [{**asdict(one), "selected_at": one.selected_at.isoformat()} for one in found]
    emit({"item": item, "selections": told}, as_json, lambda: Group(*(part for one in found for part in _parts(one))))


def _parts(one: SelectionHistory) -> list[Any]:
    by = one.model if one.model == one.recall else f"{one.model} over {one.recall}"
    counts = (
        f"{one.candidates} candidates, {one.found} of the library, {one.repeated} repeated, {one.unreadable} unreadable"
    )
    rows = [
        (
            str(picture["rank"]), f"{picture['recall_score']:.3f}",
            "" if picture["click_score"] is None else f"{picture['click_score']:+.2f}", picture["source"],
            picture["from_item_id"], picture["uri"],
        )
        for picture in one.pictures
    ]  # fmt: skip
    mark = ", a new leading picture" if one.is_new_top else ""
    return [
        Text(f"{by}, {one.selected_at:%Y-%m-%d %H:%M} UTC{mark}", "bold"),
        Text(f"{one.text!r}: {counts}"),
        table(("rank", "text", "clicks", "source", "of item", "picture"), rows),
        "",
    ]


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="Where they go: .jsonl, .csv or .parquet.")],
    *,
    recall: Annotated[str | None, typer.Option(help="NAME:TAG. [default: what serves the role image_recall]")] = None,
    ranker: Annotated[
        str | None, typer.Option(help="NAME:TAG. [default: what serves the role image_ranker, if anything does]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the pictures of all items, a row each, as one pair of models selected them."""
    from shopvision.selection.item_pictures.job import resolved
    from shopvision.selection.item_pictures.reading import export_selections

    models = resolved(recall, ranker)
    rows = export_selections(output, models.ordering.model_version_id, models.recall.model_version_id)
    emit({"pictures": rows, "output": str(output.resolve())}, as_json, lambda: f"{rows:,} pictures: {output.resolve()}")


@app.command()
def report(
    job: Annotated[str | None, typer.Argument(help="The select_images job's id, or its first characters.")] = None,
    *,
    latest: Annotated[bool, typer.Option("--latest", help="The newest select_images job.")] = False,
    items: Annotated[int, typer.Option(min=1, max=5_000, help="So many items at most.")] = 500,
    output: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("selections-report.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write a page that shows each item of a job with the pictures that represent it, and why."""
    from shopvision.selection.item_pictures.report import count_items, items_of, write_report
    from worker.cli.reported_job import reported_job
    from worker.ledger.progress import list_failures

    progress = reported_job(
        "select_images", job, latest=latest, model="recall", nothing="selected no pictures",
        never="No picture has been selected yet",
    )  # fmt: skip
    shown = items_of(progress.job_id, most=items)
    facts = [
        ("items in all", f"{count_items(progress.job_id):,}"),
        ("recall", str(progress.params["recall"])),
        ("ranker", str(progress.params.get("ranker") or "none")),
        ("job", str(progress.job_id)[:8]),
    ]
    write_report(output, shown, facts=facts, failures=list_failures(progress.job_id, limit=200))
    emit(
        {"report": str(output.resolve()), "job_id": str(progress.job_id), "items": len(shown)},
        as_json,
        lambda: f"{len(shown)} items: {output.resolve()}",
    )
