"""One FAISS index with the pictures its rows belong to: a base, or all deltas together.

What is said here of a picture holds for each region of one: every row of an ids file counts by itself.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.index.build import stored_vectors
from shopvision.index.distinct import VectorRows
from shopvision.index.filtered_search import RowFilter, Rows, Scores, are_few, nearest_of, nearest_rows
from shopvision.index.ids import Ids, PictureRows, category_codes, image_ids, in_category

KEPT_FILTERS = 16  # categories whose filters are kept: one byte per row each

Mask = NDArray[np.bool_]


class Owners:
    """The pictures of each row, where several may have the same vector.

    Attributes:
        pictures: numbers of the allowed pictures, those of one row side by side.
        starts: where those of row ``i`` begin, shape (rows + 1,).
    """

    def __init__(self, numbers: Rows, row_of: NDArray[np.signedinteger], rows: int) -> None:
        """``row_of``: of each of the pictures ``numbers`` its row, of so many ``rows``."""
        self.pictures = numbers[np.argsort(row_of, kind="stable")]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])

    def spread(self, scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """From rows, best first, to their pictures: at most ``k`` for each query, -1 where there are fewer."""
        queries, places = np.nonzero(rows >= 0)
        found = rows[queries, places]
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
        self._filters: dict[str | None, tuple[RowFilter, Owners | None]] = {}

    def nearest(self, vectors: Scores, k: int, category: str | None, wanted: Ids | None = None) -> tuple[Scores, Rows]:
        """Scores and numbers of up to ``k`` live pictures in ``category``, best first; -1 where there are fewer.

        ``wanted``: ids of the pictures that alone may be answered; where they are few, each is looked at.
        """
        if wanted is None:
            only, owners = self._filter(category)
        else:
            numbers = self._among(wanted, category)
            if are_few(len(numbers), self._index.ntotal, self._index.d):
                return self._nearest_of(numbers, vectors, k)
            allowed = np.zeros(len(self.live), np.bool_)
            allowed[numbers] = True
            only, owners = self._filter_of(allowed)
        scores, rows = nearest_rows(self._index, self._effort, vectors, k, only)
        return (scores, rows) if owners is None else owners.spread(scores, rows, k)

    def _nearest_of(self, numbers: Rows, vectors: Scores, k: int) -> tuple[Scores, Rows]:
        if self._vector_rows is None:
            scores, places = nearest_of(self._index, vectors, k, numbers)
            return scores, numbers[places]
        distinct, row_of = np.unique(self._vector_rows[numbers], return_inverse=True)
        return Owners(numbers, row_of, len(distinct)).spread(*nearest_of(self._index, vectors, k, distinct), k)

    def vectors(self, pictures: Rows) -> Scores:
        """The stored vectors of some pictures, float32, shape (pictures, d)."""
        rows = pictures if self._vector_rows is None else self._vector_rows[pictures]
        return stored_vectors(self._index, rows)

    @cached_property
    def _picture_rows(self) -> PictureRows:
        """Made when it is first asked for: 24 bytes a row that most readers never need."""
        return PictureRows(image_ids(self.ids))

    def _among(self, wanted: Ids, category: str | None) -> Rows:
        numbers = self._picture_rows.find(wanted)
        numbers = numbers[self.live[numbers]]
        if category is not None:
            numbers = numbers[in_category(self._categories, category)[self._codes[numbers]]]
        return numbers

    def _filter(self, category: str | None) -> tuple[RowFilter, Owners | None]:
        made = self._filters.get(category)
        if made is None:
            while len(self._filters) >= KEPT_FILTERS:  # another thread may take the oldest first
                self._filters.pop(next(iter(self._filters)), None)
            made = self._filters[category] = self._make_filter(category)
        return made

    def _make_filter(self, category: str | None) -> tuple[RowFilter, Owners | None]:
        allowed = self.live
        if category is not None and len(self._codes):
            allowed = allowed & in_category(self._categories, category)[self._codes]
        return self._filter_of(allowed)

    def _filter_of(self, allowed: Mask) -> tuple[RowFilter, Owners | None]:
        if self._vector_rows is None:
            return RowFilter.of(allowed, self._index.d), None
        numbers = np.flatnonzero(allowed)
        owners = Owners(numbers, self._vector_rows[numbers], self._index.ntotal)
        return RowFilter.of(owners.starts[1:] > owners.starts[:-1], self._index.d), owners
