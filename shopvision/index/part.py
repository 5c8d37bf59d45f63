"""One FAISS index with the pictures its rows belong to: a base, or all deltas together.

What is said here of a picture holds for each region of one: every row of an ids file counts by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.index.build import stored_codes, stored_vectors
from shopvision.index.distinct import VectorRows
from shopvision.index.filtered_search import RowFilter, Rows, Scores, copied, nearest_rows
from shopvision.index.ids import Ids, PictureRows, category_codes, image_ids, in_category

# A filter's rows are copied when the copy is missed once more, if they are many and the index is not exact anyway.
COPIED_AFTER, COPIED_FROM_ROWS = 2, 4_096
COPIED_BYTES = 128 << 20  # at most, of all filters of a generation together
KEPT_FILTERS = 16  # filters that are kept: four bytes for each allowed row, and one for each row where it is walked

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Made:
    """A filter of rows; ``wanted`` is kept so that no other array takes its address meanwhile."""

    wanted: Ids | None
    only: RowFilter
    owners: Owners | None


class Owners:
    """The pictures of each row, where several may have the same vector.

    Attributes:
        rows: those that pictures have, ascending and distinct.
        pictures: numbers of the pictures, those of one row side by side.
        starts: where those of ``rows[i]`` begin, shape (rows + 1,).
    """

    def __init__(self, numbers: Rows, row_of: NDArray[np.signedinteger]) -> None:
        """``row_of``: of each of the pictures ``numbers`` its row."""
        order = np.argsort(row_of, kind="stable")
        ordered = row_of[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        self.rows = ordered[first]
        self.pictures = numbers[order]
        self.starts = np.append(first, len(ordered))

    def spread(self, scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """From rows, best first, to their pictures: at most ``k`` for each query, -1 where there are fewer."""
        queries, places = np.nonzero(rows >= 0)
        found = np.searchsorted(self.rows, rows[queries, places])
        counts = np.minimum(self.starts[found + 1] - self.starts[found], k)
        source = np.repeat(np.arange(len(found)), counts)
        within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        query = queries[source]
        place = np.arange(len(source)) - np.searchsorted(query, query)
        kept = place < k
        source, within, query, place = source[kept], within[kept], query[kept], place[kept]
        wide = (len(rows), int(place.max()) + 1 if len(place) else 0)
        pictures, of_picture = np.full(wide, -1, np.int64), np.full(wide, -np.inf, np.float32)
        pictures[query, place] = self.pictures[self.starts[found[source]] + within]
        of_picture[query, place] = scores[queries[source], places[source]]
        return of_picture, pictures


class Part:
    """Searches one FAISS index; answers are pictures by their row in ``ids``."""

    def __init__(self, index: Any, ids: Any, live: Mask, effort: int, vector_rows: VectorRows | None = None) -> None:
        """Open for searching.

        Args:
            index: a FAISS index of this package.
            ids: Arrow table of its pictures.
            live: pictures that may be answered, shape (pictures,).
            effort: at which the index was found good enough; 0 for an exact one.
            vector_rows: the row of ``index`` that each picture's vector is; ``None`` where picture ``i`` has row ``i``.
        """
        self.ids = ids
        self.live = live
        self._index = index
        self._effort = effort
        self._vector_rows = vector_rows
        self._codes, self._categories = category_codes(ids)
        self._filters: OrderedDict[object, _Made] = OrderedDict()
        self._lock = Lock()

    def nearest(self, vectors: Scores, k: int, category: str | None, wanted: Ids | None = None) -> tuple[Scores, Rows]:
        """Scores and numbers of up to ``k`` live pictures in ``category``, best first; -1 where there are fewer.

        ``wanted``: ids of the pictures that alone may be answered. Which rows those are is remembered for an array that
        cannot be written to.
        """
        made = self._filter(category, wanted)
        scores, rows = nearest_rows(self._index, self._effort, vectors, k, made.only)
        if made.only.copies_missed >= COPIED_AFTER and made.only.copy is None:
            self._copy(made.only)
        return (scores, rows) if made.owners is None else made.owners.spread(scores, rows, k)

    def _copy(self, only: RowFilter) -> None:
        """Lay a filter's rows side by side; where they take too much, those of filters not asked for lately go."""
        code_bytes = stored_codes(self._index).shape[1]
        if self._effort == 0 or only.count < COPIED_FROM_ROWS or only.count * code_bytes > COPIED_BYTES:
            return
        only.copy = copied(self._index, only.rows)
        with self._lock:
            others = [made.only for made in self._filters.values() if made.only.copy is not None]
            while sum(other.count for other in others) * code_bytes > COPIED_BYTES:
                oldest = others.pop(0)
                oldest.copy, oldest.copies_missed = None, 0

    def vectors(self, pictures: Rows) -> Scores:
        """The stored vectors of some pictures, float32, shape (pictures, d)."""
        rows = pictures if self._vector_rows is None else self._vector_rows[pictures]
        return stored_vectors(self._index, rows)

    @cached_property
    def _picture_rows(self) -> PictureRows:
        """Made when it is first asked for: 24 bytes a row that most readers never need."""
        return PictureRows(image_ids(self.ids))

    def _filter(self, category: str | None, wanted: Ids | None) -> _Made:
        if wanted is not None and wanted.flags.writeable:
            return self._make(category, wanted)
        key = category, None if wanted is None else id(wanted)
        with self._lock:
            made = self._filters.get(key)
            if made is not None:
                self._filters.move_to_end(key)
                return made
        made = self._make(category, wanted)
        with self._lock:
            self._filters[key] = made
            while len(self._filters) > KEPT_FILTERS:
                self._filters.popitem(last=False)
        return made

    def _make(self, category: str | None, wanted: Ids | None) -> _Made:
        if wanted is None:
            allowed = self.live
            if category is not None and len(self._codes):
                allowed = allowed & in_category(self._categories, category)[self._codes]
            numbers = np.flatnonzero(allowed)
        else:
            numbers = np.sort(self._picture_rows.find(wanted))
            numbers = numbers[self.live[numbers]]
            if category is not None:
                numbers = numbers[in_category(self._categories, category)[self._codes[numbers]]]
        if self._vector_rows is None:
            return _Made(wanted, RowFilter(self._index.ntotal, numbers), None)
        owners = Owners(numbers, self._vector_rows[numbers])
        return _Made(wanted, RowFilter(self._index.ntotal, owners.rows), owners)
