"""Measure everything, or the benchmarks that are named: ``python -m benchmarks [NAME ...] [--quick]``.

Each runs in a process of its own. Results go to ``results.md`` and one JSON file per benchmark, where those of other
kinds of machines stay.
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

from benchmarks import page
from benchmarks.common import REPOSITORY, progress
from benchmarks.machine import INSTRUCTIONS, ONEDNN_SETS, commit, kind, only, software

NAMES = (
    "pair_scoring",
    "pair_scoring_stages",
    "pair_scoring_job",
    "pair_families",
    "blocking",
    "blocking_vectors",
    "grouping",
    "ranking",
    "click_ranking",
    "graph_training",
    "embedding_refresh",
    "embedding_refresh_large_pictures",
    "embedding_refresh_large_model",
    "embedding_refresh_fresh_worker",
    "worker_memory",
    "fashion",
    "engine_overhead",
    "index",
    "index_latency",
    "visual_search",
    "text_search",
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
    parser.add_argument(
        "--instructions", choices=ONEDNN_SETS,
        help="let oneDNN and ATen use no more than these, as on another machine; kept as a kind of machine of its own",
    )  # fmt: skip
    parser.add_argument("--remark", help="measure nothing; say this below what was measured on this kind of machine")
    parser.add_argument("--tables", type=Path, help=argparse.SUPPRESS)  # the process that measures
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    if arguments.instructions:
        os.environ |= only(arguments.instructions)
    if arguments.tables:
        tables = importlib.import_module(f"benchmarks.{arguments.names[0]}").run(quick=arguments.quick)
        arguments.tables.write_text(json.dumps([asdict(table) for table in tables]), encoding="utf-8")
        return
    output = arguments.output or (
        Path(tempfile.mkdtemp(prefix="benchmarks-")) if arguments.quick else REPOSITORY / "docs" / "benchmarks"
    )
    output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        if arguments.remark is None:
            page.keep(output, name, measure(name, quick=arguments.quick))
        elif not page.remark(output, name, kind(), arguments.remark):
            parser.error(f"{name} was not measured on this kind of machine: {page.title(kind())}")
        (output / "results.md").write_text(page.render(output, NAMES), encoding="utf-8")
    print(page.render(output, NAMES))
    progress(f"written to {output}")


def measure(name: str, *, quick: bool) -> page.Block:
    """One benchmark in its own process, so that none inherits another's settings and memory."""
    progress(f"{name} ...")
    started, load = time.time(), os.getloadavg()[0]
    options = ["--quick"] if quick else []
    options += ["--instructions", os.environ[INSTRUCTIONS]] if INSTRUCTIONS in os.environ else []
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch, "tables.json")
        command = [sys.executable, "-m", "benchmarks", name, "--tables", str(result), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        tables = json.loads(result.read_text(encoding="utf-8"))
    return {
        "kind": kind(),
        "software": software(),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks", name, *options]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.time() - started),
        "load_before": round(load, 2),
        "tables": tables,
    }


if __name__ == "__main__":
    main()
