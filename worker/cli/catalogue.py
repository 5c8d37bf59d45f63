"""``shopvision catalogue``: import items with their pictures, and look at them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from shopvision.catalogue.importing import ImportReport, Kind
    from shopvision.catalogue.record_schema import Item, Plan

app = typer.Typer(no_args_is_help=True, help="Import items and look at them.")

ERRORS_PRINTED = 20

File = Annotated[str, typer.Argument(help="JSONL, CSV or Parquet (also .gz), a local path or s3://bucket/key.")]
MapOption = Annotated[
    Path | None, typer.Option("--map", help="TOML file that says which of their columns fills which field.")
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Check and count everything, write nothing.")]
DeleteMissingFlag = Annotated[bool, typer.Option("--delete-missing", help="Delete what is stored but not in the file.")]
ForceFlag = Annotated[
    bool, typer.Option("--force", help="Let --delete-missing delete more than a tenth, or after more was refused.")
]
ErrorsOption = Annotated[
    Path | None, typer.Option("--errors", help="Write one line for every refused row to this file.")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="jsonl, csv or parquet, where the file's name does not tell.")
]


@app.command("import")
def import_items(
    file: File,
    *,
    images: Annotated[
        str | None,
        typer.Option(help="Where `file` pictures start from: a folder or s3://bucket/prefix. [default: beside FILE]"),
    ] = None,
    map_file: MapOption = None,
    dry_run: DryRunFlag = False,
    delete_missing: DeleteMissingFlag = False,
    force: ForceFlag = False,
    errors: ErrorsOption = None,
    file_format: FormatOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import items; safe to repeat. Good rows go in; exit status 1 tells that some were refused."""
    from shopvision.catalogue.importing import items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.record_schema import Item

    beside = file.rpartition("/")[0] if file.startswith("s3://") else str(Path(file).parent)
    root = PictureRoot.parse(images or beside)
    report = run_import(
        items_kind(root),
        Item,
        file,
        map_file=map_file,
        dry_run=dry_run,
        delete_missing=delete_missing,
        force=force,
        errors=errors,
        file_format=file_format,
        as_json=as_json,
    )
    if root.folder is not None and not dry_run:
        make_readable(root.folder)
    finish(report, as_json)


def run_import(
    kind: Kind,
    model: type[Item | Plan],
    file: str,
    *,
    map_file: Path | None,
    dry_run: bool,
    delete_missing: bool,
    force: bool,
    errors: Path | None,
    file_format: str | None,
    as_json: bool,
) -> ImportReport:
    """Import ``file`` under a progress bar."""
    from shopvision.catalogue.column_mapping import Mapping
    from shopvision.catalogue.importing import Importer
    from shopvision.catalogue.source_files import open_source

    mapping = Mapping.load(map_file, model) if map_file else None
    with ExitStack() as stack:
        source = stack.enter_context(open_source(file, file_format))
        error_log = stack.enter_context(_opened(errors)) if errors else None
        bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=error_console,
                transient=True,
                disable=as_json or not error_console.is_terminal,
            )
        )
        task = bar.add_task(Path(file).name, total=1.0)

        def show(report: ImportReport, fraction_read: float) -> None:
            rows = f"{report.rows:,} rows" + (f", {report.refused:,} refused" if report.refused else "")
            bar.update(task, completed=fraction_read, description=f"{Path(file).name}: {rows}")

        importer = Importer(kind, source, mapping=mapping, dry_run=dry_run, error_log=error_log, on_progress=show)
        return importer.run(delete_missing=delete_missing, force=force)


def finish(report: ImportReport, as_json: bool) -> None:
    """Print the report; exit status 1 where something was refused."""
    for error in [] if as_json else report.errors[:ERRORS_PRINTED]:
        error_console.print(Text(f"{report.source}:{error.line}: {error.message}"))
    emit(report.as_dict(), as_json, lambda: _summary(report))
    if not report.complete:
        sys.exit(1)


def _opened(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--errors {path}: {error.strerror}. Name a file that can be written.") from None


def _summary(report: ImportReport) -> Text:
    rate = report.rows / max(report.seconds, 1e-9)
    changes = f"{report.inserted:,} new, {report.updated:,} changed, {report.unchanged:,} unchanged"
    lines = [
        f"{report.rows:,} rows: {changes}, {report.refused:,} refused; {report.deleted:,} deleted; {rate:,.0f} rows/s"
    ]
    if report.refused > ERRORS_PRINTED:
        lines.append(f"{report.refused - ERRORS_PRINTED:,} more refused rows: --errors FILE lists all of them.")
    if report.not_deleted:
        lines.append(f"Nothing was deleted: {report.not_deleted}.")
    if report.dry_run:
        lines.append("Dry run: nothing was written.")
    return Text("\n".join(lines))


def make_readable(folder: Path) -> None:
    """On a local stack the one who imports decides what workers may read; on servers the operator does, by settings."""
    from shopvision.images import allow_image_root, allowed_image_roots
    from shopvision.local_stack_env import ENVIRONMENT_FILE

    settings = get_settings()
    if any(folder.is_relative_to(root) for root in allowed_image_roots(settings)):
        return
    if (settings.home / ENVIRONMENT_FILE).is_file():
        allow_image_root(settings, folder)
    else:
        error_console.print(
            Text(f"Workers may not read pictures in {folder}: add it to SHOPVISION_IMAGE_ROOTS where they run."),
            style="yellow",
        )


@app.command()
def show(item_id: Annotated[str, typer.Argument(help="The item's id.")], as_json: JsonFlag = False) -> None:
    """Show an item with its pictures, and what of them has vectors: the whole, or which garment."""
    from sqlalchemy import text

    from shopvision.database import snapshot
    from shopvision.embeddings.chosen_regions import chosen_regions

    with snapshot() as connection:
        row = connection.execute(
            text("SELECT to_jsonb(items) - 'content_hash' FROM items WHERE item_id = :item_id"), {"item_id": item_id}
        ).scalar()
        if row is None:
            raise UserError(f"There is no item {item_id!r}. `shopvision catalogue stats` tells how many there are.")
        pictures = connection.execute(
            text(
                """
                SELECT position, image_id, view, uri,
                       (SELECT count(*) FROM embeddings WHERE embeddings.image_id = item_images.image_id) AS embeddings
                FROM item_images WHERE item_id = :item_id ORDER BY position
                """
            ),
            {"item_id": item_id},
        ).mappings()
        item: dict[str, Any] = {
            **row, "images": [dict(picture) for picture in pictures], "vectors": chosen_regions(connection, item_id)
        }  # fmt: skip

    def render() -> Group:
        apart = {"images", "vectors"}
        fields = [(name, value) for name, value in item.items() if name not in apart and value not in (None, [], {})]
        columns = ("position", "image_id", "view", "embeddings", "uri")
        shown = [[picture[column] for column in columns] for picture in item["images"]]
        parts: list[Any] = [table(("field", "value"), fields), "", table(columns, shown)]
        if item["vectors"]:
            vectors = [(one["image_id"], one["model"], one["region"], _part(one)) for one in item["vectors"]]
            parts += ["", table(("image_id", "model", "region", "vector of"), vectors)]
        return Group(*parts)

    emit(item, as_json, render)


def _part(vector: dict[str, Any]) -> str:
    """What of a picture a vector is of."""
    if vector["label"] is None:
        return "the whole picture" if vector["region"] == 0 else "a garment that is not known any more"
    left, top, right, bottom = (round(edge) for edge in vector["box"])
    return f"{vector['label']} ({vector['score']:.2f}) at {left},{top},{right - left},{bottom - top}"


@app.command()
def stats(as_json: JsonFlag = False) -> None:
    """Count what the catalogue holds."""
    from sqlalchemy import text

    from shopvision.database import snapshot

    with snapshot() as connection:
        counts = connection.execute(
            text(
                """
                SELECT (SELECT count(*) FROM items) AS items, (SELECT count(*) FROM item_images) AS pictures,
                       (SELECT count(*) FROM plans) AS plans, (SELECT count(*) FROM plan_items) AS plan_members,
                       (SELECT max(updated_at) FROM items) AS newest_change
                """
            )
        ).mappings()
        found: dict[str, Any] = dict(counts.one())
        categories = connection.execute(
            text(
                """
                SELECT coalesce(split_part(category, '/', 1), '(none)') AS category, count(*) AS items
                FROM items GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 50
                """
            )
        )
        found["categories"] = {row.category: row.items for row in categories}

    def render() -> Group:
        totals = [(name.replace("_", " "), value) for name, value in found.items() if name != "categories"]
        return Group(table(("", "count"), totals), "", table(("category", "items"), list(found["categories"].items())))

    emit(found, as_json, render)
