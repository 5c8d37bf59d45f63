"""Catalogue import: items a second for new, changed and unchanged rows, per format, and peak memory by size.

Items have 2 pictures, 6 attributes, a description of 40 words and two keys of their own. Every run is a process of its
own against the database that ``SHOPVISION_DATABASE_URL`` names, whose catalogue is **emptied** first; without the
variable an embedded server is started for the time of the benchmark.

    python benchmarks/catalogue_import.py [--items 200000] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

MEMORY_SIZES = (1_000, 10_000, 100_000)
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
    from shopvision.catalogue.addresses import PictureRoot
    from shopvision.catalogue.files import open_source
    from shopvision.catalogue.importing import Importer, items_kind

    before = peak_mib()
    with open_source(path) as source:
        report = Importer(items_kind(PictureRoot("file:///photos/")), source).run()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        **{
            key: value
            for key, value in report.as_dict().items()
            if key in {"rows", "inserted", "updated", "unchanged", "refused"}
        },
        "items_per_second": round(report.rows / report.seconds),
        "client_cpu_us_per_item": round((usage.ru_utime + usage.ru_stime) / report.rows * 1e6, 1),
        "rss_start_mib": before,
        "rss_peak_mib": peak_mib(),
    }
    sys.stdout.write(json.dumps(result))


def peak_mib() -> int:
    """Peak resident memory since the program was loaded; ``ru_maxrss`` would count the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def measure(label: str, path: Path) -> dict[str, Any]:
    output = subprocess.run([sys.executable, __file__, "--child", str(path)], check=True, stdout=subprocess.PIPE).stdout
    return {"what": label, "format": path.suffix[1:], **json.loads(output), "load": round(os.getloadavg()[0], 1)}


def empty_catalogue() -> None:
    from sqlalchemy import text

    from shopvision.database import connect

    with connect() as connection:
        connection.execute(text("TRUNCATE items CASCADE"))


def run(count: int, folder: Path) -> list[dict[str, Any]]:
    first, price, pictures = (
        write_file(folder / f"{name}.jsonl", count, name) for name in ("first", "price", "pictures")
    )
    empty_catalogue()
    results = [
        measure("new", first),
        measure("every row changed", price),
        measure("every row changed, again", first),
        measure("every row unchanged", first),
        measure("every row and one of its pictures changed", pictures),
    ]
    for suffix in (".csv", ".parquet"):
        results.append(measure("every row changed", write_file(folder / f"first{suffix}", count, "first")))
        results.append(measure("every row unchanged", folder / f"first{suffix}"))
        measure("back", pictures)
    for size in MEMORY_SIZES:
        empty_catalogue()
        results.append(measure(f"memory, {size:,} items", write_file(folder / "size.jsonl", size, "first")))
    return results


def markdown(results: list[dict[str, Any]]) -> str:
    names = (
        "what",
        "format",
        "rows",
        "items_per_second",
        "client_cpu_us_per_item",
        "rss_start_mib",
        "rss_peak_mib",
        "load",
    )
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(result[name]) for name in names) + " |" for result in results]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if "SHOPVISION_DATABASE_URL" not in os.environ:
            os.environ["SHOPVISION_DATABASE_URL"] = embedded(folder / "postgres", stack)
        from worker.schema import migrate

        migrate()
        results = run(arguments.items, folder)
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("pydantic", "psycopg", "pyarrow")},
    }
    print(markdown(results), json.dumps(machine), sep="\n\n")
    if arguments.out:
        content = json.dumps({"machine": machine, "results": results}, indent=1)
        (arguments.out / "catalogue_import.json").write_text(content, encoding="utf-8")


def embedded(folder: Path, stack: ExitStack) -> str:
    """An own server, stopped with ``stack``; its address."""
    from worker.stack.embedded import PostgresServer, free_port

    folder.mkdir()
    server = PostgresServer(folder / "data", free_port(), "benchmark")
    server.initialise()
    log = stack.enter_context((folder / "log").open("ab"))
    process = subprocess.Popen(server.command(), stdout=log, stderr=log, cwd="/")
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGINT)
    server.wait_until_ready()
    return server.url


if __name__ == "__main__":
    main()
