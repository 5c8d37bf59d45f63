"""The search index: build time, recall and speed by size; and what a publication costs after how much change.

The last part runs on an embedded Postgres in a temporary folder.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Deployment, Table, progress
from benchmarks.machine import kept

if TYPE_CHECKING:
    from shopvision.index.manifest import IndexType

DIMENSION = 128
QUERIES = 1000
SHARES = (0.0, 0.001, 0.01, 0.1)
VECTORS, QUICK_VECTORS = 100_000, 5_000
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (10_000,)


def catalogue_vectors(rows: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """So many unit vectors like those of a catalogue, and unseen queries of the same kind."""
    from tests.integration.index.catalogue import clustered

    everything = clustered(rows + QUERIES, DIMENSION, clusters=max(1, rows // 20))
    return everything[:rows], everything[rows:].astype(np.float32)


def built(rows: int, vectors: NDArray[np.float16]) -> tuple[IndexType, int, Path]:
    """The kind of the index of ``catalogue_vectors``, its effort, and its file: built once for a machine."""
    from shopvision.index.build import build, choose_type
    from shopvision.index.faiss_library import faiss
    from shopvision.index.gate import require_recall

    kind = choose_type(rows)
    file = kept() / f"{kind}-{rows}.faiss"
    effort = file.with_suffix(".effort")
    if not file.exists():
        progress(f"building an index of {rows:,} vectors ...")
        index = build(kind, vectors)
        part = file.with_suffix(".part")
        faiss.write_index(index, str(part))
        part.rename(file)
    if not effort.exists():
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        effort.write_text(str(require_recall(index, kind, vectors)[0]), encoding="utf-8")
    return kind, int(effort.read_text(encoding="utf-8")), file


def by_size(rows: int) -> dict[str, Any]:
    """Build, measure recall@10 against exact search with unseen queries, and count queries per second."""
    from shopvision.index.build import build, choose_type, exact_index, memory_needed, search_parameters
    from shopvision.index.gate import require_recall

    vectors, queries = catalogue_vectors(rows)
    kind = choose_type(rows)
    started = time.perf_counter()
    index = build(kind, vectors)
    seconds = time.perf_counter() - started
    effort, _ = require_recall(index, kind, vectors)
    parameters = search_parameters(index, effort)
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


def by_change(count: int) -> list[dict[str, Any]]:
    """Seconds and bytes of a publication after a share of the vectors changed, each on a fresh full generation."""
    from shopvision.index.collecting import collect_garbage
    from shopvision.index.publish import publish
    from shopvision.storage import open_store
    from tests.integration.index.catalogue import add_items, clustered, embed, make_model

    store = open_store()
    model = make_model("bench", "1")
    vectors = clustered(count, DIMENSION)
    add_items(0, count)
    for start in range(0, count, 20_000):
        embed(model, range(start, min(start + 20_000, count)), vectors[start : start + 20_000])
    first = publish("bench", model, store)
    results = [_row("first publication", first)]
    for share in SHARES:
        changed = round(count * share)
        if changed:
            picked = np.random.default_rng(changed).choice(count, changed, replace=False)
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


def run(*, quick: bool) -> list[Table]:
    """All parts; the largest size takes minutes and 2 GB of memory."""
    sizes = []
    for rows in QUICK_SIZES if quick else SIZES:
        sizes.append(by_size(rows))
        progress(f"index: {sizes[-1]}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers():
        changes = by_change(QUICK_VECTORS if quick else VECTORS)
    return [
        Table("Search index by size", f"{DIMENSION} dimensions; recall of unseen queries against exact search.", sizes),
        Table(
            "Cost of publishing a change",
            "Each publication starts from a full generation and follows a change of so many vectors.",
            changes,
        ),
    ]
