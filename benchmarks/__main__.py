"""Measure everything, or the benchmarks that are named: ``python -m benchmarks [NAME ...] [--quick]``.

Each runs in a process of its own. Results go to ``results.md`` and one JSON file per benchmark.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common import REPOSITORY, Table, machine, progress

NAMES = (
    "pair_scoring",
    "blocking",
    "grouping",
    "ranking",
    "embedding_refresh",
    "embedding_refresh_large_model",
    "fashion",
    "engine_overhead",
    "index",
    "visual_search",
    "catalogue_import",
)


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="only show that everything works; numbers mean nothing")
    parser.add_argument(
        "--output", type=Path, help="folder of the results; docs/benchmarks, with --quick a temporary one"
    )
    parser.add_argument("--tables", type=Path, help=argparse.SUPPRESS)  # the process that measures
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    if arguments.tables:
        tables = importlib.import_module(f"benchmarks.{arguments.names[0]}").run(quick=arguments.quick)
        arguments.tables.write_text(json.dumps([asdict(table) for table in tables]), encoding="utf-8")
        return
    output = arguments.output or (
        Path(tempfile.mkdtemp(prefix="benchmarks-")) if arguments.quick else REPOSITORY / "docs" / "benchmarks"
    )
    output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        measure(name, output, quick=arguments.quick)
    page = render(output)
    (output / "results.md").write_text(page, encoding="utf-8")
    print(page)
    progress(f"written to {output}")


def measure(name: str, output: Path, *, quick: bool) -> None:
    """One benchmark in its own process, so that none inherits another's settings and memory."""
    progress(f"{name} ...")
    started, load = time.time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch, "tables.json")
        command = [sys.executable, "-m", "benchmarks", name, "--tables", str(result), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        tables = json.loads(result.read_text(encoding="utf-8"))
    document = {
        "command": f"python -m benchmarks {name}{' --quick' if quick else ''}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.time() - started),
        "load_before": round(load, 2),
        "machine": machine(),
        "tables": tables,
    }
    (output / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def render(output: Path) -> str:
    """One page from the JSON files of ``output``."""
    lines = [
        "# Benchmarks",
        "",
        "`make bench` writes this page. Rates vary between machines; ratios of one run carry over.",
        "",
    ]
    told = None
    for name in NAMES:
        path = output / f"{name}.json"
        if not path.exists():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["machine"] != told:
            told = document["machine"]
            lines += [", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items()) + ".", ""]
        for table in document["tables"]:
            lines.append(Table(**table).markdown())
        when = f"{document['date']}, {document['seconds']:,} s, load average before it {document['load_before']}"
        lines += [f"`{document['command']}`: {when}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
