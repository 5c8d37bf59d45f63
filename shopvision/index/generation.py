"""One generation, opened for searching. It never changes, so every answer belongs to exactly one generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.index.build import exact_index, search_parameters, storage_of
from shopvision.index.faiss_library import faiss
from shopvision.index.ids import category_codes, image_ids, in_category, live_masks, read_ids
from shopvision.index.manifest import Manifest, Segment, StoredFile

# Where a filter leaves so few rows, comparing with each of them is as fast as walking a graph or cells that mostly lead
# to forbidden rows, and misses nothing (2 % of 100,000 rows left: recall 0.28 through the graph).
EXACT_SHARE = 0.2


@dataclass(frozen=True)
class Hit:
    """One picture that was found.

    Attributes:
        score: cosine similarity to the query.
        in_category: whether it lies in the category asked for; true where none was.
    """

    image_id: int
    item_id: str
    uri: str
    category: str | None
    score: float
    in_category: bool


class _Part:
    """An index with the ids of its rows; ``live`` rows may be answered."""

    def __init__(self, index: Any, tables: list[Any], live: NDArray[np.bool_], effort: int) -> None:
        self.index = index
        self.live = live
        self.effort = effort
        self.ids = pa.concat_tables(tables)
        self.codes, self.categories = category_codes(self.ids)

    def rows_in(self, category: str) -> NDArray[np.bool_]:
        return in_category(self.categories, category)[self.codes] if len(self.codes) else self.live

    def search(
        self, vectors: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows, shape (queries, <= k), row -1 where there are fewer."""
        count = int(allowed.sum())
        if count == 0:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        index, selector = self.index, None
        if count < len(allowed):
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            if count <= EXACT_SHARE * len(allowed):
                index = storage_of(index)
        k = min(k, count)
        scores, rows = index.search(vectors, k, params=search_parameters(index, max(self.effort, k), selector))
        return scores, rows

    def hit(self, row: int, score: float, *, in_category: bool) -> Hit:
        found = {name: self.ids.column(name)[row].as_py() for name in self.ids.column_names}
        return Hit(score=score, in_category=in_category, **found)


class Generation:
    """Base and deltas of one manifest over local files."""

    def __init__(self, manifest: Manifest, local: Callable[[StoredFile], Path]) -> None:
        """Open the files.

        Args:
            local: gives the local path of a stored file (``FileCache.fetch``); its errors come through.
        """
        self.manifest = manifest
        tables = [read_ids(local(segment.ids)) for segment in manifest.segments]
        gone = [self._tombstones(segment, local) for segment in manifest.segments]
        masks = live_masks([(image_ids(table), dead) for table, dead in zip(tables, gone, strict=True)])
        base = faiss.read_index(str(local(manifest.base.vectors)), faiss.IO_FLAG_MMAP_IFC)
        self._parts = [_Part(base, tables[:1], masks[0], manifest.search_effort)]
        if manifest.deltas:
            # Deltas are a fraction of the base: one exact index in memory answers for all of them.
            delta = exact_index(manifest.dimension)
            for segment, mask in zip(manifest.deltas, masks[1:], strict=True):
                vectors = faiss.read_index(str(local(segment.vectors))).reconstruct_n(0, segment.rows)
                if mask.any():
                    delta.add(vectors[mask])
            live_tables = [table.filter(mask) for table, mask in zip(tables[1:], masks[1:], strict=True)]
            self._parts.append(_Part(delta, live_tables, np.ones(delta.ntotal, np.bool_), 0))

    @staticmethod
    def _tombstones(segment: Segment, local: Callable[[StoredFile], Path]) -> NDArray[np.int64]:
        return np.empty(0, np.int64) if segment.tombstones is None else np.load(local(segment.tombstones))

    @property
    def path(self) -> str:
        """Which generation this is."""
        return self.manifest.path

    @property
    def model(self) -> str:
        """``name:tag`` of the model version that queries must be encoded with."""
        return self.manifest.model

    @property
    def live(self) -> int:
        """How many pictures can be found."""
        return sum(int(part.live.sum()) for part in self._parts)

    def search(
        self, vectors: NDArray[np.float32], k: int, category: str | None = None, *, soft: bool = True
    ) -> list[list[Hit]]:
        """The ``k`` nearest pictures of each query, best first.

        Args:
            vectors: float32, shape (queries, dimension), unit length.
            category: a category path; it covers what lies below it.
            soft: pictures in the category come first and others fill up to ``k``; otherwise others never appear.

        Raises:
            UserError: wrong shape, or ``k`` below 1.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            raise UserError(
                f"The query has shape {vectors.shape}, the index {self.path} needs "
                f"(queries, {self.manifest.dimension}): encode it with {self.model}."
            )
        if k < 1:
            raise UserError(f"k is {k}: ask for at least one hit.")
        if category is None:
            return self._nearest(vectors, k, None)
        inside = self._nearest(vectors, k, category)
        if not soft or all(len(hits) == k for hits in inside):
            return inside
        return [
            self._filled(hits, others, k) for hits, others in zip(inside, self._nearest(vectors, k, None), strict=True)
        ]

    @staticmethod
    def _filled(inside: list[Hit], others: list[Hit], k: int) -> list[Hit]:
        known = {hit.image_id for hit in inside}
        outside = [Hit(**{**vars(hit), "in_category": False}) for hit in others if hit.image_id not in known]
        return (inside + outside)[:k]

    def _nearest(self, vectors: NDArray[np.float32], k: int, category: str | None) -> list[list[Hit]]:
        found: list[list[tuple[float, _Part, int]]] = [[] for _ in vectors]
        for part in self._parts:
            allowed = part.live if category is None else part.live & part.rows_in(category)
            for query, (scores, rows) in enumerate(zip(*part.search(vectors, k, allowed), strict=True)):
                found[query].extend((float(s), part, int(r)) for s, r in zip(scores, rows, strict=True) if r >= 0)
        best = [sorted(candidates, key=lambda candidate: -candidate[0])[:k] for candidates in found]
        return [[part.hit(row, score, in_category=True) for score, part, row in hits] for hits in best]

    def vectors_of(self, item_id: str) -> NDArray[np.float32]:
        """The stored vectors of an item's pictures, shape (pictures, dimension); zero rows for an unknown item."""
        found = []
        for part in self._parts:
            mine = pc.equal(part.ids.column("item_id"), item_id).to_numpy() if part.ids.num_rows else part.live
            rows = np.flatnonzero(mine.astype(np.bool_) & part.live)
            found += [storage_of(part.index).reconstruct(int(row)) for row in rows]
        return np.stack(found) if found else np.empty((0, self.manifest.dimension), np.float32)
