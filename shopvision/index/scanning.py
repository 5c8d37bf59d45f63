"""Indexes in memory for work that needs neighbours once: candidates of pairs, hard negatives.

Up to 20,000 vectors are compared exactly, by matrix products in single precision. Of more, one byte a number is kept
and 12 of ids, and those in the cells nearest to a query are compared (FAISS IVF with 8-bit scalar quantisation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import JobError
from shopvision.index.build import ADD_ROWS, EXACT_UP_TO, TRAINING_PER_CELL, available_memory
from shopvision.index.faiss_library import faiss

PROBED_CELLS = 16  # where all that they hold may be answered


def scanned_index(vectors: NDArray[np.floating[Any]]) -> tuple[Any, int]:
    """An empty index for ``vectors``, shape (n, d), of unit length, and how many cells it has; 0 where it is exact.

    Raises:
        JobError: it would not fit in memory.
    """
    rows, dimension = vectors.shape
    cells = 0 if rows <= EXACT_UP_TO else round(4 * rows**0.5)
    needed = rows * (dimension + 12 if cells else 4 * dimension) + 8 * ADD_ROWS * dimension
    if needed > available_memory():
        raise JobError(
            f"Comparing {rows:,} vectors of dimension {dimension} needs {needed / 2**30:.1f} GiB of memory, "
            f"{available_memory() / 2**30:.1f} GiB are free: run it on a larger machine, or do without them."
        )
    if not cells:
        return faiss.IndexFlatIP(dimension), 0
    index = faiss.index_factory(dimension, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(rows, min(rows, cells * TRAINING_PER_CELL), replace=False)
    index.train(vectors[np.sort(sample)].astype(np.float32))
    return index, cells


def scan_parameters(cells: int, *, share: float = 1.0, selector: Any | None = None) -> Any:
    """Of a search.

    Args:
        cells: of the index.
        share: of its vectors that may be answered; where they are fewer, more cells are looked into.
        selector: which vectors may be answered; all by default.
    """
    chosen = {} if selector is None else {"sel": selector}
    if not cells:
        return faiss.SearchParameters(**chosen)
    return faiss.SearchParametersIVF(nprobe=min(cells, int(np.ceil(PROBED_CELLS / share))), **chosen)
