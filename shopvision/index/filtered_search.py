"""Nearest rows of a FAISS index among those that a filter allows.

A graph or cells lead to what is near, whether it is allowed or not. Asked for allowed rows only, they end where the
query lies: of a category in another region they find nothing, or what lies at its edge, and nothing tells that from a
right answer. So the walk is made without the filter, for more rows than wanted, and its answer is taken where enough of
the nearest are allowed; those are as right as any unfiltered answer. All other queries are compared with every allowed
row: with few, by taking just those; with many, in a scan of all rows that passes over the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.index.build import search_parameters, storage_of, stored_vectors
from shopvision.index.faiss_library import faiss

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

SLACK = 2  # neighbours asked for, per one expected to hold enough allowed rows if the filter knew nothing of places
# Comparing with so many rows in sequence costs what one more step of a walk does (measured, 128 dimensions).
ROWS_PER_STEP = 150
QUERIES_AT_ONCE = 1_024


def are_few(count: int, rows: int, dimension: int) -> bool:
    """Whether so many allowed ones of all ``rows`` are compared sooner one by one than by a scan.

    To take a row by itself costs, for each dimension, what it costs a scan to pass over one that is not allowed
    (measured, 128 and 1280 dimensions).
    """
    return count * dimension <= rows


@dataclass(frozen=True)
class RowFilter:
    """Which rows may be answered.

    Attributes:
        allowed: bool, shape (rows,).
        count: how many are.
        selector: the same for FAISS; ``None`` where all are.
        few: the allowed rows, ascending, where they are to be taken one by one.
    """

    allowed: NDArray[np.bool_]
    count: int
    selector: Any
    few: Rows | None

    @classmethod
    def of(cls, allowed: NDArray[np.bool_], dimension: int) -> RowFilter:
        """A filter that allows what ``allowed`` says, of vectors of so many dimensions."""
        count = int(allowed.sum())
        hides = count < len(allowed)
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")) if hides else None
        few = np.flatnonzero(allowed) if hides and are_few(count, len(allowed), dimension) else None
        return cls(allowed, count, selector, few)


def nearest_rows(index: Any, effort: int, vectors: Scores, k: int, only: RowFilter) -> tuple[Scores, Rows]:
    """The ``min(k, only.count)`` nearest allowed rows of each query, best first.

    Args:
        index: a FAISS index of this package.
        effort: at which it was found good enough; 0 for an index that compares with every row.
        vectors: float32, shape (queries, d).

    Returns:
        scores and rows, both of shape (queries, min(k, only.count)).
    """
    k = min(k, only.count)
    if k == 0:
        return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
    if only.few is not None:
        scores, places = nearest_of(index, vectors, k, only.few)
        return scores, only.few[places]
    total = len(only.allowed)
    wanted = k if only.selector is None else min(total, -(-SLACK * k * total // only.count))
    steps = max(effort, wanted)
    if effort == 0 or only.count <= ROWS_PER_STEP * steps:
        return _compared(index, vectors, k, only)
    scores, rows = index.search(vectors, wanted, params=search_parameters(index, steps, None))
    hits = (rows >= 0) & only.allowed[rows]
    if not hits.all():
        first = np.argsort(~hits, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, first, axis=1), np.take_along_axis(rows, first, axis=1)
    scores, rows = scores[:, :k], rows[:, :k]
    short = np.flatnonzero(hits.sum(axis=1) < k)
    if len(short):
        scores[short], rows[short] = _compared(index, vectors[short], k, only)
    return scores, rows


def nearest_of(index: Any, vectors: Scores, k: int, rows: NDArray[np.signedinteger]) -> tuple[Scores, Rows]:
    """The ``min(k, len(rows))`` nearest of a few rows: each query is compared with each.

    Returns:
        scores, best first, and the places of what was found in ``rows``; both of shape (queries, min(k, len(rows))).
    """
    k = min(k, len(rows))
    stored = stored_vectors(index, rows).T
    scores, places = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
    for start in range(0, len(vectors) if k else 0, QUERIES_AT_ONCE):
        block = slice(start, start + QUERIES_AT_ONCE)
        all_scores = vectors[block] @ stored
        best = np.argpartition(-all_scores, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(all_scores, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        scores[block] = np.take_along_axis(found, order, axis=1)
        places[block] = np.take_along_axis(best, order, axis=1)
    return scores, places


def _compared(index: Any, vectors: Scores, k: int, only: RowFilter) -> tuple[Scores, Rows]:
    """With each allowed row."""
    storage = storage_of(index)
    scores, rows = storage.search(vectors, k, params=search_parameters(storage, 0, only.selector))
    return scores, rows
