"""A folder with a table of items and their pictures, or with pictures alone, as a catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.errors import UserError

if TYPE_CHECKING:
    from worker.demo.guide import Guide

TABLES = ("items", "products", "catalogue", "catalog")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"}
REFUSED_SHOWN = 5


def import_folder(guide: Guide, folder: Path) -> None:
    """Import what ``folder`` holds; workers may read its pictures from now on.

    Raises:
        UserError: there is no such folder, or nothing in it that can be imported.
    """
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import Source, open_source
    from shopvision.catalogue.vendure import read_vendure
    from shopvision.images import allow_image_root
    from shopvision.settings import get_settings

    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give --catalogue a folder with items.jsonl and its pictures.")
    allow_image_root(get_settings(), folder)
    found = items_table(folder)
    if found is not None and found.name != "products.csv":
        with open_source(str(found)) as source:
            report = Importer(items_kind(PictureRoot.parse(str(folder))), source).run()
    else:
        images = folder / "images" if found is not None else folder
        records = read_vendure(found) if found is not None else _one_item_per_picture(folder)
        report = Importer(
            items_kind(PictureRoot.parse(str(images))), Source(str(folder), enumerate(records, start=1), lambda: 1.0)
        ).run()
    if report.inserted + report.updated + report.unchanged == 0:
        reason = report.errors[0].message if report.errors else "it holds no items and no pictures"
        raise UserError(f"Nothing could be imported from {folder}: {reason}.")
    guide.say(
        f"imported {report.rows} items from {folder}: {report.inserted} new, {report.updated} changed, "
        f"{report.unchanged} unchanged, {report.refused} refused"
    )
    for error in report.errors[:REFUSED_SHOWN]:
        guide.say(f"  line {error.line}: {error.message}")


def items_table(folder: Path) -> Path | None:
    """The table of items in a folder, under one of the names that are known."""
    return next(filter(Path.is_file, (folder / f"{stem}{suffix}" for stem in TABLES for suffix in SUFFIXES)), None)


def _one_item_per_picture(folder: Path) -> Iterator[dict[str, Any]]:
    """Each picture is an item, its sub-folder the category, its name the title."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            relative = path.relative_to(folder)
            yield {
                "item_id": str(relative),
                "title": path.stem.replace("-", " ").replace("_", " "),
                "category": list(relative.parts[:-1]),
                "images": [{"file": str(relative)}],
            }
