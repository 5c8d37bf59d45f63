"""Items whose vectors are near: texts of a two-tower, or pictures where there is no published index of them.

Memory is that of ``shopvision.index.scanning``; the vectors themselves stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Executable, select

from shopvision.errors import JobError
from shopvision.index.build import ADD_ROWS
from shopvision.index.faiss_library import faiss
from shopvision.index.scanning import scan_parameters, scanned_index
from shopvision.matching.blocking.inverted import Found, firsts, strongest
from shopvision.matching.blocking.rows import Categories, ItemRows, Rows
from shopvision.matching.options import BlockingOptions, Source
from shopvision.matching.stopping import ShouldStop, never, until_stopped
from shopvision.matching.tables import ItemVector

KEPT_MASKS = 64
READ_ROWS = 5_000

Vectors = NDArray[np.float16]


class VectorIndex:
    """The nearest rows of a row, by the vectors that each has."""

    def __init__(
        self, source: Source, vectors: Vectors, owners: Rows, options: BlockingOptions, categories: Categories,
        *, should_stop: ShouldStop = never,
    ) -> None:  # fmt: skip
        """Index ``vectors``, shape (n, d), float16 of unit length, that belong to the rows ``owners``, shape (n,).

        Raises:
            JobError: the index would not fit in memory.
            StopAskedError: ``should_stop`` said yes meanwhile.
        """
        self._source: Source = source
        self._vectors, self._owners = vectors, owners
        self._options, self._categories = options, categories
        self._by_owner = np.argsort(owners, kind="stable")
        self._ascending = owners[self._by_owner]
        self._index, self._cells = scanned_index(vectors)
        for start in until_stopped(range(0, len(vectors), ADD_ROWS), should_stop):
            self._index.add(vectors[start : start + ADD_ROWS].astype(np.float32))
        self._per_item = -(-len(owners) // max(1, len(np.unique(owners))))
        self._allowed = lru_cache(maxsize=KEPT_MASKS)(self._mask)

    def find(self, rows: Rows) -> list[Found]:
        """The nearest other rows that may be compared with ``rows``; rows without a vector find none."""
        first, last = np.searchsorted(self._ascending, rows), np.searchsorted(self._ascending, rows, side="right")
        counts = last - first
        mine = np.repeat(first, counts) + np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self._by_owner[mine]
        roots = self._categories.roots[self._owners[places]]
        found = [self._nearest(places[roots == root], int(root)) for root in np.unique(roots)]
        if not found:
            return []
        query, other, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
        everything = Found(self._source, query, other, similarity)
        return [neighbours(everything, self._options.neighbours, self._categories)]

    def _nearest(self, places: NDArray[np.int64], root: int) -> tuple[Rows, Rows, NDArray[np.float32]]:
        """Rows asked for, rows found, and their cosine, of one root category."""
        selector, count = self._allowed(root)
        wanted = min((self._options.neighbours + 1) * self._per_item, count)
        parameters = scan_parameters(self._cells, share=max(1, count) / len(self._owners), selector=selector)
        scores, hits = self._index.search(self._vectors[places].astype(np.float32), wanted, params=parameters)
        near = (hits >= 0) & (scores >= self._options.min_similarity)
        query = np.repeat(self._owners[places], near.sum(1))
        return query, self._owners[hits[near]], scores[near].astype(np.float32)

    def _mask(self, root: int) -> tuple[Any | None, int]:
        """Which vectors an item of a root category may be compared with, and how many that are."""
        if root < 0:
            return None, len(self._owners)
        roots = self._categories.roots[self._owners]
        allowed = (roots == root) | (roots < 0)
        if allowed.all():
            return None, len(self._owners)
        return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")), int(allowed.sum())


def unit_vectors(vectors: NDArray[np.floating[Any]]) -> tuple[Vectors, NDArray[np.intp]]:
    """Vectors (n, d) at unit length in half precision, and their places; without those of no length or not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    places = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    return (vectors[places] / lengths[places, None]).astype(np.float16), places


def read_text_vectors(
    connection: Connection, model_version_id: int, rows: ItemRows, folder: Path, should_stop: ShouldStop
) -> tuple[Vectors, Rows]:
    """The item vectors of a model version at unit length, mapped from a file in ``folder``, and their rows.

    Raises:
        JobError: they differ in length.
        StopAskedError: ``should_stop`` said yes meanwhile.
    """
    path, size, owners = folder / "texts.f16", 1, [np.empty(0, np.int32)]
    query = select(ItemVector.item_id, ItemVector.vector).where(ItemVector.model_version_id == model_version_id)
    with path.open("wb") as file:
        batches = vector_batches(connection, query.order_by(ItemVector.item_id))
        for batch, vectors in until_stopped(batches, should_stop):
            size = vectors.shape[1]
            mine = rows.find(row.item_id for row in batch)
            units, places = unit_vectors(vectors[mine >= 0])
            file.write(units.tobytes())
            owners.append(mine[mine >= 0][places])
    rows_of = np.concatenate(owners)
    if not len(rows_of):
        return np.empty((0, size), np.float16), rows_of
    return np.memmap(path, np.float16, "r", shape=(len(rows_of), size)), rows_of


def vector_batches(connection: Connection, query: Executable) -> Iterator[tuple[Sequence[Any], Vectors]]:
    """Rows of ``item_id`` and ``vector``, streamed, and the vectors of each batch as a matrix.

    Raises:
        JobError: they differ in length.
    """
    size = 0
    with connection.execute(query, execution_options={"yield_per": READ_ROWS}) as result:
        for batch in result.partitions():
            size = size or len(batch[0].vector)
            for row in batch:
                if len(row.vector) != size:
                    raise JobError(
                        f"Item {row.item_id!r} has a vector of {len(row.vector) // 2} numbers, others have "
                        f"{size // 2}: delete the item vectors of this model version and compute them again."
                    )
            yield batch, np.frombuffer(b"".join(row.vector for row in batch), "<f2").reshape(len(batch), -1)


def neighbours(found: Found, limit: int, categories: Categories) -> Found:
    """The ``limit`` nearest rows of each query that it may be compared with, each once, itself excepted."""
    keep = (found.query != found.found) & categories.compatible(found.query, found.found)
    query, other, similarity = found.query[keep], found.found[keep], np.clip(found.similarity[keep], 0, 1)
    order = np.lexsort((-similarity, other, query))
    query, other, similarity = query[order], other[order], similarity[order]
    first = firsts(query, other)
    query, other, similarity = query[first], other[first], similarity[first]
    best = strongest(query, similarity, other, limit)
    return Found(found.source, query[best], other[best], similarity[best])
