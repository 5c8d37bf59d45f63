"""Items that are near others, by their ids: what is found before anybody knows which items there are rows for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, select

from shopvision.database import among
from shopvision.matching.blocking.inverted import Found
from shopvision.matching.blocking.rows import ItemRows, Rows, root_of
from shopvision.matching.blocking.vectors import neighbours, unit_vectors, vector_batches
from shopvision.matching.options import BlockingOptions, Source
from shopvision.matching.stopping import ShouldStop, until_stopped
from shopvision.matching.tables import BlockingKeys, ItemVector

QUERIES_AT_ONCE = 1_024

Floats = NDArray[np.float32]


@dataclass
class NearItems:
    """Items that are near others, by their ids.

    Attributes:
        queries, found: pairs of ids, of one length; the same pair may be there several times.
        similarity: of each pair.
    """

    source: Source
    queries: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)

    def add(self, query: str, found: Sequence[str], similarity: Sequence[float]) -> None:
        """Items that are near one."""
        self.queries += [query] * len(found)
        self.found += found
        self.similarity += similarity

    def in_rows(self, rows: ItemRows, limit: int) -> Found:
        """The ``limit`` nearest of each, in rows; items without a row are left out."""
        query, found = rows.find(self.queries), rows.find(self.found)
        known = (query >= 0) & (found >= 0)
        everything = Found(self.source, query[known], found[known], np.array(self.similarity, np.float32)[known])
        return neighbours(everything, limit, rows.categories())


class FoundNearby:
    """What was found for rows before they are asked for."""

    def __init__(self, near: NearItems, rows: ItemRows, limit: int) -> None:
        self._found = near.in_rows(rows, limit)

    def find(self, rows: Rows) -> list[Found]:
        """What was found for ``rows``."""
        everything = self._found
        mine = np.isin(everything.query, rows)
        return [Found(everything.source, everything.query[mine], everything.found[mine], everything.similarity[mine])]


def nearest_texts(
    connection: Connection, model_version_id: int, item_ids: Sequence[str], options: BlockingOptions,
    should_stop: ShouldStop,
) -> NearItems:  # fmt: skip
    """The items whose vectors are nearest to those of a few, exactly: every vector is read once, and none is kept.

    Raises:
        JobError: vectors of the model version differ in length.
        StopAskedError: ``should_stop`` said yes meanwhile.
    """
    near = NearItems("text_vector")
    mine = [part for part in vector_batches(connection, _vectors(model_version_id, item_ids)) if len(part[0])]
    if not mine:
        return near
    rows = [row for batch, _ in mine for row in batch]
    queries, places = unit_vectors(np.concatenate([vectors for _, vectors in mine]))
    asked = [rows[place] for place in places]
    roots = np.array([root_of(row.category, options.within) for row in asked], str)
    spans = [slice(start, start + QUERIES_AT_ONCE) for start in range(0, len(asked), QUERIES_AT_ONCE)]
    nearest = [_Nearest(queries[span], roots[span], options.neighbours + 1) for span in spans]
    for batch, vectors in until_stopped(vector_batches(connection, _vectors(model_version_id)), should_stop):
        units, kept = unit_vectors(vectors)
        ids = np.array([batch[place].item_id for place in kept], object)
        others = np.array([root_of(batch[place].category, options.within) for place in kept], str)
        for part in nearest:
            part.see(ids, units.astype(np.float32), others)
    for row, (scores, found) in zip(asked, (one for part in nearest for one in part.best()), strict=True):
        enough = scores >= options.min_similarity
        near.add(row.item_id, found[enough].tolist(), scores[enough].tolist())
    return near


def _vectors(model_version_id: int, item_ids: Sequence[str] | None = None) -> Select[str, bytes, str]:
    query = (
        select(ItemVector.item_id, ItemVector.vector, BlockingKeys.category)
        .join(BlockingKeys, BlockingKeys.item_id == ItemVector.item_id)
        .where(ItemVector.model_version_id == model_version_id)
    )
    return query if item_ids is None else query.where(among(ItemVector.item_id, item_ids))


class _Nearest:
    """The nearest of some queries among all that was seen so far."""

    def __init__(self, queries: NDArray[np.float16], roots: NDArray[np.str_], wanted: int) -> None:
        self._queries, self._roots = queries.astype(np.float32), roots
        self._scores = np.full((len(queries), wanted), -np.inf, np.float32)
        self._found = np.full((len(queries), wanted), "", object)

    def see(self, ids: NDArray[np.object_], vectors: Floats, roots: NDArray[np.str_]) -> None:
        """Compare with some more items; an item without a root category goes with any."""
        scores = self._queries @ vectors.T
        mine = self._roots[:, None]
        scores[~((mine == roots) | (mine == "") | (roots == ""))] = -np.inf
        wanted = self._scores.shape[1]
        together = np.concatenate([self._scores, scores], axis=1)
        best = np.argpartition(-together, wanted - 1, axis=1)[:, :wanted]
        places = np.maximum(best - wanted, 0)
        former = np.take_along_axis(self._found, np.minimum(best, wanted - 1), axis=1)
        self._found = np.where(best < wanted, former, ids[places] if len(ids) else former)
        self._scores = np.take_along_axis(together, best, axis=1)

    def best(self) -> list[tuple[Floats, NDArray[np.object_]]]:
        """Cosines and ids of each query, in no order; places that stayed empty have minus infinity."""
        return list(zip(self._scores, self._found, strict=True))
