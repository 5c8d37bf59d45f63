"""The search index: build time, recall and speed by size; and what a publication costs after how much change.

    python -m benchmarks.index [--million] [--output FOLDER]

The second part starts an embedded Postgres of its own in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 128
QUERIES = 1000
SHARES = (0.0, 0.001, 0.01, 0.1)
VECTORS = 100_000


def by_size(rows: int) -> dict[str, Any]:
    """Build, measure recall@10 against exact search with unseen queries, and count queries per second."""
    from shopvision.index.build import build, choose_type, exact_index, memory_needed, search_parameters
    from shopvision.index.gate import require_recall
    from tests.integration.index.catalogue import clustered

    everything = clustered(rows + QUERIES, DIMENSION, clusters=max(1, rows // 20))
    vectors, queries = everything[:rows], everything[rows:].astype(np.float32)
    kind = choose_type(rows)
    started = time.perf_counter()
    index = build(kind, vectors)
    seconds = time.perf_counter() - started
    effort, _ = require_recall(index, kind, vectors)
    parameters = search_parameters(index, effort, None)
    exact = exact_index(DIMENSION)
    for start in range(0, rows, 65_536):
        exact.add(vectors[start : start + 65_536].astype(np.float32))
    _, right = exact.search(queries, 10)
    _, found = index.search(queries, 10, params=parameters)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(right, found, strict=True)])
    started = time.perf_counter()
    index.search(queries, 10, params=parameters)
    batched = QUERIES / (time.perf_counter() - started)
    started = time.perf_counter()
    for query in queries:
        index.search(query[None], 10, params=parameters)
    single = QUERIES / (time.perf_counter() - started)
    return {
        "vectors": rows, "type": kind, "effort": effort, "build_seconds": round(seconds, 2),
        "recall_at_10": round(float(recall), 4),
        "queries_per_second_batched": round(batched), "queries_per_second_single": round(single),
        "memory_estimate_mb": round(memory_needed(kind, rows, DIMENSION) / 1e6),
    }  # fmt: skip


def by_change(folder: Path) -> list[dict[str, Any]]:
    """Seconds and bytes of a publication after a share of the vectors changed, each on a fresh full generation."""
    from shopvision.index import collect_garbage, publish
    from shopvision.storage import open_store
    from tests.integration.index.catalogue import add_items, clustered, embed, make_model

    store = open_store(f"file://{folder}/store")
    model = make_model("bench", "1")
    vectors = clustered(VECTORS, DIMENSION)
    add_items(0, VECTORS)
    for start in range(0, VECTORS, 20_000):
        embed(model, range(start, start + 20_000), vectors[start : start + 20_000])
    first = publish("bench", model, store)
    results = [_row("first publication", first)]
    for share in SHARES:
        changed = round(VECTORS * share)
        if changed:
            picked = np.random.default_rng(changed).choice(VECTORS, changed, replace=False)
            embed(model, picked, clustered(changed, DIMENSION, seed=changed))
        results.append(_row(f"{share:.1%} changed", publish("bench", model, store)))
        publish("bench", model, store, force_full=share > 0)
        collect_garbage("bench", 1, store)
    return results


def _row(name: str, report: Any) -> dict[str, Any]:
    return {
        "case": name, "kind": report.kind, "seconds": round(report.seconds, 2),
        "megabytes_uploaded": round(report.bytes_uploaded / 1e6, 3),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows])


def incremental() -> list[dict[str, Any]]:
    import signal

    from shopvision.database import dispose_engine
    from shopvision.settings import get_settings
    from tests.conftest import running
    from worker.schema import migrate
    from worker.stack.embedded import PostgresServer, free_port

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["SHOPVISION_HOME"] = str(folder / "home")
        server = PostgresServer(folder / "postgres", free_port(), "bench")
        with running(server, folder / "log", signal.SIGINT):
            os.environ["SHOPVISION_DATABASE_URL"] = server.url
            get_settings.cache_clear()
            migrate()
            results = by_change(folder)
            dispose_engine()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true", help="also 1,000,000 vectors: minutes, and 2 GB of memory")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    sizes = []
    for rows in (10_000, 100_000, *([1_000_000] if arguments.million else [])):
        sizes.append(by_size(rows))
        print(sizes[-1], flush=True)
    print(table(sizes), flush=True)
    changes = incremental()
    print(table(changes))
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    document = {"machine": machine, "by_size": sizes, "by_change": changes}
    (arguments.output / "index.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
