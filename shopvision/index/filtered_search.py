"""Nearest rows of a FAISS index among those that a filter allows.

A graph or cells lead to what is near, whether it is allowed or not. Asked for allowed rows only, they end where the
query lies: of a category in another region they find nothing, or what lies at its edge, and nothing tells that from a
right answer. So the walk is made without the filter, for more rows than wanted, and its answer is taken where enough of
the nearest are allowed; those are as right as any unfiltered answer. Where too few are, a longer walk follows if it is
the cheaper way, and at last the query is compared with every allowed row, which is exact.

Rows are compared in blocks: their codes are copied side by side into the room of one small exact index, which then
searches them. That costs half of what FAISS takes to pass over the others by a selector, and nothing for these. A
filter that is asked for again may keep such a copy of all its rows, which is then read from end to end.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.index.build import exact_index, search_parameters, stored_codes

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

SLACK = 2  # neighbours asked for, per one expected to hold enough allowed rows if the filter knew nothing of places
# Steps of a walk, per row asked for. Where no row is much nearer than the next, as beyond the rows of a cluster, a walk
# of one step a row misses a third of them, of four an eighth, of eight a twentieth (measured, a million rows).
STEPS_PER_ROW = 8
# How many rows compared in blocks cost as much as (measured, 128 dimensions, a million rows):
ROWS_PER_STEP = 70  # one step of a walk
ROWS_PER_SCANNED = 0.2  # one row of an exact index that is read from end to end
BLOCK_BYTES = 1 << 19  # of codes compared at a time: they stay in the cache between being copied and being searched
QUERIES_AT_ONCE = 1_024
ROWS_AT_ONCE = 16_384


class RowFilter:
    """Which rows may be answered, of so many in all; safe for threads.

    Attributes:
        total: so many.
        rows: which may be answered, ascending.
        copy: an exact index of these rows, in their order, where one was made.
        copies_missed: how often a copy would have been read if there had been one.
    """

    def __init__(self, total: int, rows: NDArray[np.signedinteger]) -> None:
        """``rows``: ascending and distinct."""
        self.total = total
        self.rows = rows.astype(np.int32)  # as FAISS numbers the links of its graphs
        self.copy: Any | None = None
        self.copies_missed = 0

    @property
    def count(self) -> int:
        """How many may."""
        return len(self.rows)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether each row may; made when an answer is first looked through."""
        mask = np.zeros(self.total, np.bool_)
        mask[self.rows] = True
        return mask

    def asked(self, k: int, share: float) -> int:
        """How many nearest rows to ask for, so that ``k`` allowed ones are likely among them.

        Args:
            k: see above.
            share: of those near the query that are allowed.
        """
        return min(self.total, k + self.total - self.count, math.ceil(SLACK * k / share))


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
    scores, rows = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
    pending = np.arange(len(vectors) if k else 0)
    wanted, longer = 0, only.asked(k, only.count / only.total) if k else 0
    copy = only.copy  # it may be dropped meanwhile
    if copy is None and k and not _is_walked(effort, longer, only, has_copy=True):
        only.copies_missed += 1
    while len(pending) and longer > wanted and _is_walked(effort, longer, only, has_copy=copy is not None):
        wanted = longer
        parameters = search_parameters(index, _steps(effort, wanted, only))
        near, places = index.search(vectors[pending], wanted, params=parameters)
        hits = (places >= 0) & only.allowed[places]
        counts = np.count_nonzero(hits, axis=1)
        done = counts >= k
        first = np.argsort(~hits[done], axis=1, kind="stable")[:, :k]
        scores[pending[done]] = np.take_along_axis(near[done], first, axis=1)
        rows[pending[done]] = np.take_along_axis(places[done], first, axis=1)
        pending = pending[~done]
        share = np.median(counts[~done]) / wanted if len(pending) else 1.0
        longer = only.asked(k, share) if share else 0
    if len(pending):
        if copy is None:
            scores[pending], places = nearest_of(index, vectors[pending], k, only.rows)
        else:
            scores[pending], places = copy.search(vectors[pending], k)
        rows[pending] = only.rows[places]
    return scores, rows


def _steps(effort: int, wanted: int, only: RowFilter) -> int:
    return effort if only.count == only.total else max(effort, STEPS_PER_ROW * wanted)


def _is_walked(effort: int, wanted: int, only: RowFilter, *, has_copy: bool) -> bool:
    """Whether to ask the index for its ``wanted`` nearest rows is cheaper than to compare with each allowed one."""
    if only.count == only.total:
        return True
    by_index = ROWS_PER_SCANNED * only.total if effort == 0 else ROWS_PER_STEP * _steps(effort, wanted, only)
    return by_index < only.count * (ROWS_PER_SCANNED if has_copy else 1)


def copied(index: Any, rows: NDArray[np.signedinteger]) -> Any:
    """An exact index of some rows, in their order."""
    copy = exact_index(index.d)
    codes = stored_codes(index)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        copy.add_sa_codes(codes[rows[start : start + ROWS_AT_ONCE]])
    return copy


def nearest_of(index: Any, vectors: Scores, k: int, rows: NDArray[np.signedinteger]) -> tuple[Scores, Rows]:
    """The ``min(k, len(rows))`` nearest of some rows: each query is compared with each.

    Args:
        index: a FAISS index of this package.
        vectors: float32, shape (queries, d).
        k: how many.
        rows: ascending, so that memory is read in its order.

    Returns:
        scores, best first, and the places of what was found in ``rows``; both of shape (queries, min(k, len(rows))).
        Of equal scores the one that comes first in ``rows`` is first; which of those at the end are there is open.
    """
    k = min(k, len(rows))
    scores, places = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
    for start in range(0, len(vectors) if k else 0, QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        scores[some], places[some] = _compared(index, vectors[some], k, rows)
    return scores, places


def _compared(index: Any, vectors: Scores, k: int, rows: NDArray[np.signedinteger]) -> tuple[Scores, Rows]:
    codes = stored_codes(index)
    at_once = min(len(rows), max(1, BLOCK_BYTES // codes.shape[1]))
    block = exact_index(index.d)
    block.add_sa_codes(np.zeros((at_once, codes.shape[1]), np.uint8))
    room = stored_codes(block)
    scores, places = [], []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        np.take(codes, some, axis=0, out=room[: len(some)], mode="clip")  # "raise" would copy the room
        block.ntotal = len(some)
        of_block, found = block.search(vectors, min(k, len(some)))
        scores.append(of_block)
        places.append(found + start)
    all_scores, all_places = np.concatenate(scores, axis=1), np.concatenate(places, axis=1)
    best = np.lexsort((all_places, -all_scores), axis=1)[:, :k]
    return np.take_along_axis(all_scores, best, axis=1), np.take_along_axis(all_places, best, axis=1)
