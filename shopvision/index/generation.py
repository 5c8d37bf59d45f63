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
from shopvision.index.build import exact_index
from shopvision.index.faiss_library import faiss
from shopvision.index.filtered_search import Rows, Scores
from shopvision.index.ids import Ids, image_ids, live_masks, look_up, read_ids
from shopvision.index.manifest import Manifest, Segment, StoredFile
from shopvision.index.part import Part


@dataclass(frozen=True)
class Hit:
    """One picture, or region of a picture, that was found.

    Attributes:
        region: which of the picture's ``picture_regions`` it is; 0 for the whole.
        score: cosine similarity to the query.
        in_category: whether it lies in the category asked for; true where none was.
    """

    image_id: int
    region: int
    item_id: str
    uri: str
    category: str | None
    score: float
    in_category: bool


@dataclass(frozen=True)
class Neighbours:
    """What many queries found, best first; both of shape (queries, up to k).

    Attributes:
        scores: float32, cosine similarity; ``-inf`` where there are fewer.
        pictures: int64, numbers within the generation of pictures, or of regions that have vectors of their own; -1
            where there are fewer.
    """

    scores: Scores
    pictures: Rows


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
        shared = manifest.base.vector_rows
        rows = None if shared is None else np.load(local(shared))
        self._parts = [Part(base, tables[0], masks[0], manifest.search_effort, rows)]
        if manifest.deltas:
            # Deltas are a fraction of the base: one exact index in memory answers for all of them.
            delta = exact_index(manifest.dimension)
            for segment, mask in zip(manifest.deltas, masks[1:], strict=True):
                vectors = faiss.read_index(str(local(segment.vectors))).reconstruct_n(0, segment.rows)
                if mask.any():
                    delta.add(vectors[mask])
            live = pa.concat_tables([table.filter(mask) for table, mask in zip(tables[1:], masks[1:], strict=True)])
            self._parts.append(Part(delta, live, np.ones(delta.ntotal, np.bool_), 0))
        self._ids = pa.concat_tables([part.ids for part in self._parts])
        self._live = sum(int(part.live.sum()) for part in self._parts)

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
        """How many pictures, or regions with vectors of their own, can be found."""
        return self._live

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        category: str | None = None,
        *,
        soft: bool = True,
        pictures: Ids | None = None,
    ) -> list[list[Hit]]:
        """The ``k`` nearest pictures, or regions of pictures, of each query, best first.

        Args:
            vectors: float32, shape (queries, dimension), unit length.
            category: a category path; it covers what lies below it.
            soft: pictures in the category come first and others fill up to ``k``; otherwise others never appear.
            pictures: int64 ids, ascending and distinct, of the pictures that alone may be answered; any others, and
                those that are in no catalogue, are passed over. Where they have no more than some thousand vectors, all
                are compared, so that the answer is exact. Make an array that you ask with again read-only
                (``flags.writeable = False``): which rows it means is then looked up once.

        Raises:
            UserError: wrong shape, or ``k`` below 1.
        """
        inside = self._hits(self.nearest(vectors, k, category, pictures=pictures), in_category=True)
        if category is None or not soft or all(len(hits) == k for hits in inside):
            return inside
        everywhere = self._hits(self.nearest(vectors, k, pictures=pictures), in_category=False)
        return [self._filled(hits, others, k) for hits, others in zip(inside, everywhere, strict=True)]

    def nearest(
        self, vectors: NDArray[np.float32], k: int, category: str | None = None, *, pictures: Ids | None = None
    ) -> Neighbours:
        """``search`` for many queries at once, as arrays: the ``k`` nearest, in ``category`` if one is given.

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
        scores, numbers, first = [], [], 0
        for part in self._parts:
            of_part, rows = part.nearest(vectors, k, category, pictures)
            scores.append(of_part)
            numbers.append(np.where(rows >= 0, rows + first, -1))
            first += part.ids.num_rows
        all_pictures = np.concatenate(numbers, axis=1)
        all_scores = np.where(all_pictures < 0, np.float32(-np.inf), np.concatenate(scores, axis=1))
        best = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        return Neighbours(np.take_along_axis(all_scores, best, axis=1), np.take_along_axis(all_pictures, best, axis=1))

    def item_ids(self, pictures: Rows) -> list[str]:
        """Whose some pictures are, by their numbers in ``Neighbours``."""
        return [row["item_id"] for row in look_up(self._ids.select(["item_id"]), pictures)]

    def vectors_of(self, item_id: str) -> NDArray[np.float32]:
        """The stored vectors of an item's pictures and their regions, shape (vectors, dimension); none if unknown."""
        found = [np.empty((0, self.manifest.dimension), np.float32)]
        for part in self._parts:
            if part.ids.num_rows:
                mine = pc.equal(part.ids.column("item_id"), item_id).to_numpy().astype(np.bool_)
                found.append(part.vectors(np.flatnonzero(mine & part.live)))
        return np.concatenate(found)

    def _hits(self, found: Neighbours, *, in_category: bool) -> list[list[Hit]]:
        there = found.pictures >= 0
        facts: list[dict[str, Any]] = look_up(self._ids, found.pictures[there])
        scores = found.scores[there].tolist()
        hits = iter(
            [Hit(score=score, in_category=in_category, **fact) for score, fact in zip(scores, facts, strict=True)]
        )
        return [[next(hits) for _ in range(count)] for count in there.sum(axis=1)]

    @staticmethod
    def _filled(inside: list[Hit], others: list[Hit], k: int) -> list[Hit]:
        known = {(hit.image_id, hit.region) for hit in inside}
        return (inside + [hit for hit in others if (hit.image_id, hit.region) not in known])[:k]
