"""``shopvision demo``: the whole way once, from a catalogue of real photos to what looks alike."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from shopvision.errors import UserError
from worker.cli.output import console, table

TABLES = ("items", "products", "catalogue", "catalog")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"}
SHOWN = 6
NEIGHBOURS = 3
REPORT_ITEMS = 200
REPORT_NEIGHBOURS = 6
REFUSED_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    catalogue: Annotated[
        Path | None,
        typer.Option(help="A folder with items.jsonl, .csv or .parquet and its pictures, or with pictures alone."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("demo-report.html"),
    keep_running: Annotated[bool, typer.Option(help="Leave the stack running.")] = False,
) -> None:
    """Start a stack, import a catalogue, embed its pictures, publish the index, and show what it finds."""
    from shopvision.settings import get_settings
    from worker.stack.detached import read_status, start_detached, stop

    started = time.monotonic()
    home = get_settings().home
    was_running = read_status(home) is not None
    if not was_running:
        start_detached(home, lambda step: console.print(f"starting {escape(step)} ..."))
    get_settings.cache_clear()
    try:
        folder = catalogue or _sample()
        _import(folder)
        job_id = _refresh()
        _show_neighbours(output, job_id)
        state = read_status(home)
        if state is not None and state.flower_url:
            console.print(
                f"Flower: {state.flower_url} (user {state.flower_user}; `shopvision stack status` shows the password)"
            )
    finally:
        if not was_running and not keep_running:
            console.print("stopping the stack ...")
            stop(home)
    console.print(f"Done in {time.monotonic() - started:.0f} s. Report: {output.resolve()}")


def _sample() -> Path:
    from worker.sample_catalogue import sample_catalogue

    console.print("getting the sample catalogue (54 products with photos) ...")
    return sample_catalogue()


def _import(folder: Path) -> None:
    from shopvision.catalogue.addresses import PictureRoot
    from shopvision.catalogue.files import Source, open_source
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.images import allow_image_root
    from shopvision.settings import get_settings

    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give --catalogue a folder with items.jsonl and its pictures.")
    allow_image_root(get_settings(), folder)
    found = _table_in(folder)
    if found is not None and found.name != "products.csv":
        with open_source(str(found)) as source:
            report = Importer(items_kind(PictureRoot.parse(str(folder))), source).run()
    else:
        images = folder / "images" if found is not None else folder
        records = _vendure_products(found) if found is not None else _one_item_per_picture(folder)
        report = Importer(
            items_kind(PictureRoot.parse(str(images))), Source(str(folder), enumerate(records, start=1), lambda: 1.0)
        ).run()
    if report.inserted + report.updated + report.unchanged == 0:
        reason = report.errors[0].message if report.errors else "it holds no items and no pictures"
        raise UserError(f"Nothing could be imported from {folder}: {reason}.")
    console.print(
        f"imported {report.rows} items from {folder}: {report.inserted} new, {report.updated} changed, "
        f"{report.unchanged} unchanged, {report.refused} refused"
    )
    for error in report.errors[:REFUSED_SHOWN]:
        console.print(f"  line {error.line}: {escape(error.message)}")


def _table_in(folder: Path) -> Path | None:
    for stem in TABLES:
        for suffix in SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    return None


def _vendure_products(path: Path) -> Iterable[dict[str, Any]]:
    from shopvision.catalogue.vendure import read_vendure

    return read_vendure(path)


def _one_item_per_picture(folder: Path) -> Iterator[dict[str, Any]]:
    """A folder of pictures: each is an item, its sub-folder the category, its name the title."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            relative = path.relative_to(folder)
            yield {
                "item_id": str(relative),
                "title": path.stem.replace("-", " ").replace("_", " "),
                "category": list(relative.parts[:-1]),
                "images": [{"file": str(relative)}],
            }


def _refresh() -> uuid.UUID:
    from shopvision.database import connect
    from worker.cli.jobs import follow
    from worker.ledger.jobs import submit

    with connect() as connection:
        job_id = submit(connection, "refresh_embeddings", source="demo")
    progress = follow(job_id)
    console.print(progress.sentence())
    if progress.state != "succeeded":
        raise UserError("The demo's job did not succeed; the reason stands above.")
    return job_id


def _show_neighbours(output: Path, job_id: uuid.UUID) -> None:
    from shopvision.index import list_generations
    from shopvision.search.report import find_neighbours, write_report
    from shopvision.settings import get_settings
    from worker.ledger.progress import job_progress, list_failures

    rows = find_neighbours(limit=REPORT_ITEMS, k=REPORT_NEIGHBOURS)
    generation = next(found for found in list_generations(get_settings().index_name) if found.is_current)
    progress = job_progress(job_id)
    facts = [
        ("pictures in the index", f"{generation.live:,}"),
        ("embedded by this job", f"{progress.counters.get('embedded', 0):,}"),
        ("model", generation.model.partition(":")[0]),
    ]
    write_report(output, rows, facts=facts, failures=list_failures(job_id, limit=200))
    step = max(1, len(rows) // SHOWN)
    shown = [
        (
            row.item.title or row.item.item_id,
            ", ".join(f"{one.item.title or one.item.item_id} {one.score:.2f}" for one in row.neighbours[:NEIGHBOURS]),
        )
        for row in rows[::step][:SHOWN]
    ]
    console.print(table(("item", "looks most like"), shown))
