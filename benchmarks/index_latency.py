"""How long one query waits for an index on one core, with and without filters: from its vector to its hits."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HITS = 10
REGIONS = 2  # vectors of each picture
# Of a thousand items: so many lie in the category.
CATEGORIES = {"Large": 200, "Middle": 50, "Small": 1}


def latencies(index: Any, kind: Any, effort: int, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Milliseconds of single queries, by filter.

    Args:
        index: a FAISS index of ``shopvision.index.build``, at most of some million vectors.
        kind: of index.
        effort: at which it is good enough.
        queries: (n, d) unit vectors.
    """
    random = np.random.default_rng(0)
    pictures = index.ntotal // REGIONS
    some = np.sort(random.choice(pictures, min(1_000, pictures // 10), replace=False))
    half = np.flatnonzero(random.random(pictures) < 0.5)
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        **{f"category of {share / 10:g} %": {"category": name} for name, share in CATEGORIES.items()},
        f"{len(some):,} pictures": {"pictures": some},
        "half of all pictures": {"pictures": half},
        "category of 5 %, half of all pictures": {"category": "Middle", "pictures": half},
    }
    with tempfile.TemporaryDirectory() as name, _one_core():
        generation = _generation(index, kind, effort, Path(name))
        return [
            {"vectors": index.ntotal, "filter": case, **_measure(generation, queries, options)}
            for case, options in cases.items()
        ]


@contextmanager
def _one_core() -> Iterator[None]:
    from shopvision.index.faiss_library import faiss

    cores, threads = os.sched_getaffinity(0), faiss.omp_get_max_threads()
    os.sched_setaffinity(0, {min(cores)})
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
        os.sched_setaffinity(0, cores)


def _generation(index: Any, kind: Any, effort: int, folder: Path) -> Any:
    """The index with ids as a publication writes them, opened from disk."""
    from shopvision.index.faiss_library import faiss
    from shopvision.index.generation import Generation
    from shopvision.index.ids import IdRow, IdsWriter
    from shopvision.index.manifest import Counts, Manifest, Segment, StoredFile

    faiss.write_index(index, str(folder / "base.faiss"))
    names = np.repeat([*CATEGORIES, "Others"], [*CATEGORIES.values(), 1_000 - sum(CATEGORIES.values())])
    named = [f"{name}/All" if name == "Others" else str(name) for name in names]
    of_item = np.random.default_rng(1).integers(0, len(named), index.ntotal // REGIONS + 1).tolist()
    with IdsWriter(folder / "ids.arrow") as ids:
        for start in range(0, index.ntotal, 5_000):
            ids.write(
                IdRow(row // REGIONS, row % REGIONS, f"item-{row // REGIONS}", named[of_item[row // REGIONS]], "uri")
                for row in range(start, min(start + 5_000, index.ntotal))
            )
    stored = {name: StoredFile(key=name, sha256="", bytes=0) for name in ("base.faiss", "ids.arrow")}
    manifest = Manifest(
        name="bench", path="bench", kind="full", model="bench:1", model_version_id=1, dimension=index.d,
        index_type=kind, search_effort=effort, recall=1.0, parent=None, created_at=datetime.now(UTC),
        counts=Counts(live=index.ntotal, base=index.ntotal, delta=0, tombstones=0),
        base=Segment(path="bench", rows=index.ntotal, vectors=stored["base.faiss"], ids=stored["ids.arrow"]),
    )  # fmt: skip
    return Generation(manifest, lambda file: folder / file.key)


def _measure(generation: Any, queries: NDArray[np.float32], options: dict[str, Any]) -> dict[str, Any]:
    seconds, found = [], 0
    for number, query in enumerate(queries):
        started = time.perf_counter()
        [hits] = generation.search(query[None], HITS, soft=False, **options)
        if number:  # the first one makes what later ones find made
            seconds.append(time.perf_counter() - started)
            found += len(hits)
    milliseconds = 1e3 * np.array(seconds)
    return {
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p95_ms": round(float(np.percentile(milliseconds, 95)), 3),
        "hits": round(found / len(seconds), 1),
    }
