"""Catalogue import: items a second for new, changed and unchanged rows, per format, and peak memory by size.

Items have 2 pictures, 6 attributes, a description of 40 words and two keys of their own. Every import is a process of
its own: ``python -m benchmarks.catalogue_import FILE``.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, Deployment, Table, peak_mib, progress

ITEMS, QUICK_ITEMS = 200_000, 2_000
MEMORY_SIZES, QUICK_MEMORY_SIZES = (1_000, 10_000, 100_000), (1_000,)
WORDS = [
    "merino",
    "cotton",
    "relaxed",
    "slim",
    "hoodie",
    "jacket",
    "trail",
    "waterproof",
    "breathable",
    "classic",
    "fit",
]
WORDS += [
    "zip",
    "pocket",
    "soft",
    "brushed",
    "lining",
    "elastic",
    "waist",
    "logo",
    "crew",
    "sleeve",
    "stretch",
    "jürsey",
]


def records(count: int, edition: str) -> Any:
    """Items that differ between editions: ``price`` changes one field, ``pictures`` a picture's view too."""
    choose = random.Random(7)
    for number in range(count):
        yield {
            "item_id": f"SKU-{number:08d}",
            "title": " ".join(choose.choices(WORDS, k=6)).title(),
            "brand": choose.choice(["Luma", "Acme", "Nord", "Søren"]),
            "category": f"{choose.choice(['Men', 'Women', 'Kids'])}/Tops/{choose.choice(WORDS)}",
            "attributes": [
                {"key": key, "value": choose.choice(WORDS)}
                for key in ("material", "pattern", "climate", "color", "size", "season")
            ],
            "price": round(choose.uniform(5, 300), 2) + (edition != "first"),
            "currency": "EUR",
            "description": " ".join(choose.choices(WORDS, k=40)),
            "stock": choose.randint(0, 99),
            "flags": {"sale": True, "new": False},
            "updated_at": "2026-10-01T12:00:00Z",
            "images": [
                {"file": f"images/{number % 1000:03d}/{number}_main.jpg", "view": "main"},
                {
                    "file": f"images/{number % 1000:03d}/{number}_back.jpg",
                    "view": edition if edition == "pictures" else "back",
                },
            ],
        }


def write_file(path: Path, count: int, edition: str) -> Path:
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records(count, edition))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] | None = None
            for record in records(count, edition):
                cells = {key: json.dumps(value) if isinstance(value, list) else value for key, value in record.items()}
                if writer is None:
                    writer = csv.DictWriter(file, cells)
                    writer.writeheader()
                writer.writerow(cells)
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(list(records(count, edition))), path, row_group_size=20_000)
    return path


def child(path: str) -> None:
    """One import, measured in its own process."""
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import open_source

    before = peak_mib()
    with open_source(path) as source:
        report = Importer(items_kind(PictureRoot("file:///photos/")), source).run()
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {
        "items": report.rows,
        "items/s": round(report.rows / report.seconds),
        "CPU us per item": round(sum(usage.ru_utime + usage.ru_stime for usage in usages) / report.rows * 1e6, 1),
        "start MiB": before,
        "peak MiB": peak_mib(),
        "checking process MiB": usages[1].ru_maxrss >> 10,  # at least the parent's at its start
    }
    sys.stdout.write(json.dumps(result))


def measure(label: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.catalogue_import", str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=REPOSITORY).stdout
    progress(f"import, {label}, {path.suffix[1:]}: {output.decode()}")
    return {"rows are": label, "format": path.suffix[1:], **json.loads(output)}


def empty_catalogue() -> None:
    from sqlalchemy import text

    from shopvision.database import connect

    with connect() as connection:
        connection.execute(text("TRUNCATE items CASCADE"))


def measure_rates(count: int, folder: Path) -> list[dict[str, Any]]:
    """New, changed and unchanged rows, in each format."""
    first, price, pictures = (
        write_file(folder / f"{name}.jsonl", count, name) for name in ("first", "price", "pictures")
    )
    empty_catalogue()
    results = [
        measure("new", first),
        measure("changed", price),
        measure("changed back", first),
        measure("unchanged", first),
        measure("changed, with a picture each", pictures),
    ]
    for suffix in (".csv", ".parquet"):
        results.append(measure("changed", write_file(folder / f"first{suffix}", count, "first")))
        results.append(measure("unchanged", folder / f"first{suffix}"))
        measure("back", pictures)
    return results


def measure_memory(sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """New rows only, by number of rows."""
    results = []
    for size in sizes:
        empty_catalogue()
        measured = measure("new", write_file(folder / "size.jsonl", size, "first"))
        results.append({"items": size} | {key: value for key, value in measured.items() if "MiB" in key})
    return results


def run(*, quick: bool) -> list[Table]:
    """Rates, then memory."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers():
        rates = measure_rates(QUICK_ITEMS if quick else ITEMS, Path(name))
        memory = measure_memory(QUICK_MEMORY_SIZES if quick else MEMORY_SIZES, Path(name))
    return [
        Table(
            "Catalogue import",
            "Items a second by kind of change and format; a second process checks files from 8 MiB on.",
            rates,
        ),
        Table(
            "Memory of an import",
            "Peak resident memory of the importing process and of the one that checks a large file for it.",
            memory,
        ),
    ]


if __name__ == "__main__":
    child(sys.argv[1])
