"""How long one query waits for an index on one core, with and without filters, from its vector to its hits; and whether
its answers are right.

The index is built once for a machine and kept in ``.benchmarks``.
"""

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

from benchmarks.common import Table, progress
from benchmarks.goals import NO_GOAL, at_most
from benchmarks.index import built, catalogue_vectors
from shopvision.storage.digests import sha256_of

HITS = 10
REGIONS = 2  # vectors of each picture
SIZES, QUICK_SIZES = (100_000, 1_000_000), (5_000,)
QUERIES, QUICK_QUERIES = 300, 20
CHECKED = 50  # queries whose answers are compared with exact ones
# Of a thousand items: so many lie in the category, wherever their vectors are.
CATEGORIES = {"Large": 200, "Middle": 50, "Small": 8, "Tiny": 1}
ELSEWHERE = "Elsewhere"  # a category of vectors that are far from every query
ELSEWHERE_SHARE = 0.05
GOAL_VECTORS, GOAL_MS = 1_000_000, 5.0
BLOCK = 65_536


def run(*, quick: bool) -> list[Table]:
    """Each size."""
    rows, memory = [], []
    for size in QUICK_SIZES if quick else SIZES:
        vectors, queries = catalogue_vectors(size)
        # What is far from a category is told by one coordinate: queries have little of what its vectors have much of.
        queries = queries[np.argsort(queries[:, 0])[: QUICK_QUERIES if quick else QUERIES]]
        of_size, opened = latencies(size, vectors, np.random.default_rng(2).permutation(queries))
        rows += of_size
        memory.append(opened)
        progress(f"index_latency: {of_size}")
    return [
        Table(
            "Latency of a query, by filter",
            f"Milliseconds from one vector to {HITS} hits, query after query on one core, filters known from an "
            "earlier query; two vectors a picture. *first*: of the query that brings the filter. *recall*: of exact "
            f"search among what the filter allows. The goal is about the 95th percentile at {GOAL_VECTORS:,} vectors. "
            f"*Elsewhere*: a category of {ELSEWHERE_SHARE:.0%} far from every query, where no walk through the index "
            "helps and all of it is compared.",
            rows,
        ),
        Table(
            "Memory of an open index",
            "*own*: what a process has for itself after the queries above; the file is mapped and shared by all.",
            memory,
        ),
    ]


def latencies(
    size: int, vectors: NDArray[np.float16], queries: NDArray[np.float32]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Milliseconds of single queries, by filter; and memory."""
    random = np.random.default_rng(0)
    pictures = size // REGIONS
    some = _read_only(np.sort(random.choice(pictures, min(1_000, pictures // 10), replace=False)))
    many = _read_only(np.sort(random.choice(pictures, min(10_000, pictures // 5), replace=False)))
    half = _read_only(np.flatnonzero(random.random(pictures) < 0.5))
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        **{f"category of {share / 10:g} %": {"category": name} for name, share in CATEGORIES.items()},
        f"category of {ELSEWHERE_SHARE:.0%}, elsewhere": {"category": ELSEWHERE},
        f"{len(some):,} pictures": {"pictures": some},
        f"{len(many):,} pictures": {"pictures": many},
        "half of all pictures": {"pictures": half},
        "category of 5 %, half of all pictures": {"category": "Middle", "pictures": half},
    }
    kind, effort, file = built(size, vectors)
    sha256_of(file)  # a reader has read what it has downloaded: its pages are in memory
    with tempfile.TemporaryDirectory() as name, _one_core():
        categories = _categories(vectors)
        manifest, files = _published(size, kind, effort, file, categories, Path(name))
        before = _own_mib()
        from shopvision.index.generation import Generation

        generation = Generation(manifest, files.__getitem__)
        rows = []
        for case, options in cases.items():
            measured = _measure(generation, queries, options)
            recall = _recall(generation, vectors, queries[:CHECKED], options, categories)
            goal = at_most(GOAL_MS, measured["p95 ms"]) if size == GOAL_VECTORS else NO_GOAL
            rows.append({"vectors": size, "filter": case, **measured, "recall": recall, **goal})
        own = _own_mib() - before
    return rows, {"vectors": size, "type": kind, "file MiB": file.stat().st_size >> 20, "own MiB": own}


def _read_only(pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    pictures.flags.writeable = False
    return pictures


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


def _categories(vectors: NDArray[np.float16]) -> NDArray[np.str_]:
    """Of each row; both regions of a picture are in one, but for those that lie elsewhere."""
    rest = 1_000 - sum(CATEGORIES.values())
    named = np.repeat([*CATEGORIES, "Others/All"], [*CATEGORIES.values(), rest])
    of_picture = np.random.default_rng(1).integers(0, len(named), len(vectors) // REGIONS + 1)
    categories: NDArray[np.str_] = named[of_picture[np.arange(len(vectors)) // REGIONS]]
    first = vectors[:, 0].astype(np.float32)
    categories[first > np.quantile(first, 1 - ELSEWHERE_SHARE)] = ELSEWHERE
    return categories


def _published(
    size: int, kind: Any, effort: int, file: Path, categories: NDArray[np.str_], folder: Path
) -> tuple[Any, dict[Any, Path]]:
    """A manifest and its files, with ids as a publication writes them."""
    from shopvision.index.ids import IdRow, IdsWriter
    from shopvision.index.manifest import Counts, Manifest, Segment, StoredFile

    with IdsWriter(folder / "ids.arrow") as ids:
        for start in range(0, size, 5_000):
            ids.write(
                IdRow(row // REGIONS, row % REGIONS, f"item-{row // REGIONS}", str(categories[row]), "uri")
                for row in range(start, min(start + 5_000, size))
            )
    stored = {name: StoredFile(key=name, sha256="", bytes=0) for name in ("base.faiss", "ids.arrow")}
    manifest = Manifest(
        name="bench", path="bench", kind="full", model="bench:1", model_version_id=1, dimension=file_dimension(file),
        index_type=kind, search_effort=effort, recall=1.0, parent=None, created_at=datetime.now(UTC),
        counts=Counts(live=size, base=size, delta=0, tombstones=0),
        base=Segment(path="bench", rows=size, vectors=stored["base.faiss"], ids=stored["ids.arrow"]),
    )  # fmt: skip
    return manifest, {stored["base.faiss"]: file, stored["ids.arrow"]: folder / "ids.arrow"}


def file_dimension(file: Path) -> int:
    """Of the vectors in an index file."""
    from shopvision.index.faiss_library import faiss

    return int(faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC).d)


def _own_mib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) >> 10


def _measure(generation: Any, queries: NDArray[np.float32], options: dict[str, Any]) -> dict[str, Any]:
    milliseconds, found = [], 0
    for query in queries:
        started = time.perf_counter()
        [hits] = generation.search(query[None], HITS, soft=False, **options)
        milliseconds.append(1e3 * (time.perf_counter() - started))
        found += len(hits)
    return {
        "p50 ms": round(float(np.percentile(milliseconds[1:], 50)), 3),
        "p95 ms": round(float(np.percentile(milliseconds[1:], 95)), 3),
        "first ms": round(milliseconds[0], 1),
        "hits": round(found / len(queries), 1),
    }


def _recall(
    generation: Any,
    vectors: NDArray[np.float16],
    queries: NDArray[np.float32],
    options: dict[str, Any],
    categories: NDArray[np.str_],
) -> float | None:
    """Share of the right answers, by plain numpy in single precision."""
    allowed = np.ones(len(vectors), np.bool_)
    if "category" in options:
        allowed &= categories == options["category"]
    if "pictures" in options:
        allowed &= np.isin(np.arange(len(vectors)) // REGIONS, options["pictures"])
    rows = np.flatnonzero(allowed)
    if len(rows) < HITS:
        return None  # every way finds all of so few
    best_scores, best_rows = np.full((len(queries), HITS), -np.inf, np.float32), np.zeros((len(queries), HITS), int)
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        scores = np.concatenate([best_scores, queries @ vectors[some].astype(np.float32).T], axis=1)
        known = np.concatenate([best_rows, np.broadcast_to(some, (len(queries), len(some)))], axis=1)
        first = np.argpartition(-scores, HITS - 1, axis=1)[:, :HITS]
        best_scores, best_rows = np.take_along_axis(scores, first, axis=1), np.take_along_axis(known, first, axis=1)
    shares = []
    for hits, wanted in zip(generation.search(queries, HITS, soft=False, **options), best_rows, strict=True):
        right = {(int(row) // REGIONS, int(row) % REGIONS) for row in wanted}
        shares.append(len(right & {(hit.image_id, hit.region) for hit in hits}) / HITS)
    return round(float(np.mean(shares)), 4)
