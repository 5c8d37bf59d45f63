"""Full builds: which kind of FAISS index for how many vectors, what it needs, and making it from a spool file.

Vectors are stored in half precision everywhere, which is what Postgres holds: nothing is lost, files and memory are
half as large, and on AVX2 machines the search is as fast as in single precision.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import JobError
from shopvision.index.faiss_library import faiss
from shopvision.index.manifest import IndexType

Spool = NDArray[np.float16]

# Exact search of 20,000 x 1280 takes milliseconds on one core: no approximation is worth its recall there.
EXACT_UP_TO = 20_000
# HNSW has the best recall per query second while graph and vectors fit in memory; from millions on they do not, and
# building the graph takes hours. IVF-PQ then scans short codes and looks at the mapped full vectors of few candidates.
HNSW_UP_TO = 2_000_000

HNSW_LINKS = 32  # M of the graph: 2M links of 4 bytes on the lowest level, where nearly all memory goes
HNSW_BUILD_EFFORT = 64
REFINE_FACTOR = 8  # candidates per wanted answer whose full vectors are compared after the short codes
TRAINING_PER_CELL = 64
ADD_ROWS = 65_536


def choose_type(rows: int) -> IndexType:
    """The kind of index for so many vectors."""
    if rows <= EXACT_UP_TO:
        return "exact"
    return "hnsw" if rows <= HNSW_UP_TO else "ivfpq"


def efforts(kind: IndexType) -> tuple[int, ...]:
    """Search efforts to try in turn until recall is good enough: efSearch (hnsw), nprobe (ivfpq)."""
    steps: dict[IndexType, tuple[int, ...]] = {
        "exact": (0,),
        "hnsw": (64, 128, 256, 512),
        "ivfpq": (16, 32, 64, 128, 256),
    }
    return steps[kind]


def _cells(rows: int) -> int:
    wanted = 2 ** round(math.log2(4 * math.sqrt(rows) + 1))
    return int(max(1, min(wanted, rows // TRAINING_PER_CELL)))


def memory_needed(kind: IndexType, rows: int, dimension: int) -> int:
    """Peak bytes of a build, the block in single precision included.

    HNSW: measured 1.1 times the sum of vectors and links; the factors leave room for the growth of arrays by doubling.
    """
    vectors = rows * dimension * 2
    block = min(rows, ADD_ROWS) * dimension * 4 * 2
    if kind == "exact":
        return 2 * vectors + block
    if kind == "hnsw":
        return 2 * vectors + int(rows * HNSW_LINKS * 2 * 4 * 1.2) + block
    training = _cells(rows) * TRAINING_PER_CELL * dimension * 4 * 2
    return 2 * vectors + rows * (dimension // 4 + 16) + training + block


def available_memory() -> int:
    """Bytes this process may still take: free memory of the machine, or of its control group where that is less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or no limit in it
        return available
    return min(available, max(limit - used, 0))


def require_memory(kind: IndexType, rows: int, dimension: int) -> None:
    """Raise ``JobError`` where the build would not fit, before it takes the machine down."""
    needed, available = memory_needed(kind, rows, dimension), available_memory()
    if needed > available:
        raise JobError(
            f"An index of {rows:,} vectors of dimension {dimension} needs {needed / 2**30:.1f} GiB of memory to build, "
            f"{available / 2**30:.1f} GiB are free: run the index worker on a larger machine."
        )


def exact_index(dimension: int) -> Any:
    """An empty index that compares with every vector; it holds half precision."""
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    return index


def build(kind: IndexType, vectors: Spool) -> Any:
    """A FAISS index of ``vectors``, shape (n, d), fp16 unit vectors; ids are row numbers."""
    rows, dimension = vectors.shape
    if kind == "exact":
        index = exact_index(dimension)
    elif kind == "hnsw":
        index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_fp16, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_EFFORT
        index.train(np.zeros((1, dimension), np.float32))  # half precision learns nothing from data
    else:
        # 4-bit codes train in seconds and are scanned in registers; two dimensions share one where they divide evenly.
        codes = dimension // 2 if dimension % 2 == 0 else dimension
        index = faiss.index_factory(
            dimension, f"IVF{_cells(rows)},PQ{codes}x4fs,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT
        )
        sample = np.sort(
            np.random.default_rng(0).choice(rows, min(rows, _cells(rows) * TRAINING_PER_CELL), replace=False)
        )
        index.train(vectors[sample].astype(np.float32))
    for start in range(0, rows, ADD_ROWS):
        index.add(vectors[start : start + ADD_ROWS].astype(np.float32))
    return index


def storage_of(index: Any) -> Any:
    """The part of an index that holds the full vectors: for exact search of few rows, and for reading them back."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return faiss.downcast_index(index.refine_index)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.downcast_index(index.storage)
    return index


def stored_codes(index: Any) -> NDArray[np.uint8]:
    """The vectors as an index holds them, in half precision: shape (rows, 2 * d), a view of its memory or file."""
    storage = storage_of(index)
    codes: NDArray[np.uint8] = faiss.rev_swig_ptr(storage.codes.data(), storage.codes.size())
    return codes.reshape(-1, storage.code_size)


def stored_vectors(index: Any, rows: NDArray[np.signedinteger]) -> NDArray[np.float32]:
    """The vectors of some rows, shape (rows, d)."""
    storage = storage_of(index)
    if len(rows) == 0:
        return np.empty((0, storage.d), np.float32)
    found: NDArray[np.float32] = storage.sa_decode(stored_codes(index)[rows])
    return found


def search_parameters(index: Any, effort: int) -> Any:
    """Parameters for one search of ``index`` at ``effort``."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        inner = faiss.SearchParametersIVF(nprobe=effort)
        return faiss.IndexRefineSearchParameters(k_factor=REFINE_FACTOR, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort)
    return faiss.SearchParameters()
