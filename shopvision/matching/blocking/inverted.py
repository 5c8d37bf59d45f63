"""An inverted index of keys: which items share rare ones, and how much of what they say that is.

Similarity is the cosine of two items' keys weighted by inverse document frequency (Salton and Buckley 1988), where a
key that only one item has counts for nobody. Keys are looked up from the rarest on and under a limit, so an item costs
the same however many items share its common words.

For each key of an item that others have too, 16 bytes stay in memory, twice that while the index is built; every key
takes 12 bytes on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shopvision.matching.blocking.keys import Keys, of_source
from shopvision.matching.blocking.rows import Categories, Rows
from shopvision.matching.options import Source

PARTITION = 2**23  # keys that are sorted at once while frequencies are counted
BLOCK = 2**21  # keys that are read from disk at once


@dataclass(frozen=True)
class Found:
    """Pairs that one source found; arrays of one length.

    Attributes:
        query: row that was asked for.
        found: another row.
        similarity: float32, 0 to 1.
    """

    source: Source
    query: Rows
    found: Rows
    similarity: NDArray[np.float32]


def strongest(query: Rows, strength: NDArray[np.float32], ties: Rows, limit: int) -> NDArray[np.int64]:
    """Places of the ``limit`` greatest strengths of each query, ordered by query, then falling; ``ties`` ascend."""
    order = np.lexsort((ties, -strength, query))
    return order[ranks(query[order]) < limit]


def ranks(ascending: Rows) -> NDArray[np.int64]:
    """How many equal values stand before each, for values that ascend."""
    return np.arange(len(ascending)) - np.searchsorted(ascending, ascending)


def firsts(query: Rows, found: Rows) -> NDArray[np.bool_]:
    """Where a pair differs from the one before; both arrays are sorted, by query and then by found."""
    first = np.ones(len(query), np.bool_)
    first[1:] = (query[1:] != query[:-1]) | (found[1:] != found[:-1])
    return first


class KeySpool:
    """Keys of one source on disk, item by item; closed before they are read, or at the end of a ``with`` block."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._source: Source = source
        self._rows, self._keys = folder / f"{source}.rows", folder / f"{source}.keys"
        self._files = self._rows.open("wb"), self._keys.open("wb")

    def __enter__(self) -> KeySpool:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, rows: Rows, keys: Keys) -> None:
        """Add those of ``keys[i]`` of ``rows[i]`` that are of this source; rows must not descend."""
        mine = of_source(keys, self._source)
        rows[mine].tofile(self._files[0])
        keys[mine].tofile(self._files[1])

    def close(self) -> tuple[Rows, Keys]:
        """Everything added: rows and keys, mapped from disk."""
        for file in self._files:
            file.close()
        if not self._keys.stat().st_size:
            return np.empty(0, np.int32), np.empty(0, np.uint64)
        return np.memmap(self._rows, np.int32, "r"), np.memmap(self._keys, np.uint64, "r")


@dataclass(frozen=True)
class KeyCounts:
    """How many items have each key that several have.

    Attributes:
        keys: distinct.
        items: (keys,) how many have it, at least 2.
        total: how many items there are.
    """

    keys: Keys
    items: NDArray[np.int64]
    total: int

    @classmethod
    def of(cls, keys: Keys, total: int) -> KeyCounts:
        """Counted in ``keys``, of which each item has each once."""
        return cls(*_vocabulary(keys), total)

    def of_source(self, source: Source) -> KeyCounts:
        """Those of one source."""
        mine = of_source(self.keys, source)
        return KeyCounts(self.keys[mine], self.items[mine], self.total)


class KeyIndex:
    """Finds rows that share keys with a row."""

    def __init__(
        self, source: Source, rows: Rows, keys: Keys, counts: KeyCounts, categories: Categories, *, shared_by: int,
        budget: int, limit: int, min_similarity: float,
    ) -> None:  # fmt: skip
        """Index the keys ``keys[i]`` of ``rows[i]``; rows ascend, and no row has a key twice.

        Args:
            counts: of all items, where ``rows`` are only those that may be found.
            shared_by: a key that more rows share is not looked up.
            budget: how many rows the keys of one query may name altogether, from the rarest key on.
            limit: how many rows a query finds at most.
            min_similarity: of what is found; a budget makes it an estimate from below.
        """
        count, vocabulary, frequency = len(categories.roots), counts.keys, counts.items
        self._source: Source = source
        self._limit, self._min_similarity, self._categories = limit, min_similarity, categories
        # Columns are numbered from the rarest key on, so rare keys are a prefix of every row.
        order = np.lexsort((vocabulary, frequency))
        column = np.empty(len(order), np.int32)
        column[order] = np.arange(len(order), dtype=np.int32)
        self._frequency = frequency[order]
        self._weight = np.log1p(counts.total / self._frequency).astype(np.float32)
        row_of, columns = self._known(rows, keys, vocabulary, column)
        self._starts = np.searchsorted(row_of, np.arange(count + 1, dtype=np.int32))
        ones = np.ones(len(columns), np.float32)
        self._keys = sparse.csr_matrix((ones, columns, self._starts), shape=(count, len(order)))
        self._keys.sort_indices()
        self._lengths = np.sqrt(np.maximum(self._keys @ self._weight**2, np.float32(1e-12)))
        self._rare = int(np.searchsorted(self._frequency, shared_by, side="right"))
        self._budget = budget
        self._postings = self._keys[:, : self._rare].T.tocsr()

    @staticmethod
    def _known(rows: Rows, keys: Keys, vocabulary: Keys, column: Rows) -> tuple[Rows, Rows]:
        """Rows and columns of the keys that are in the vocabulary."""
        row_of, columns, size = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32), 0
        for start in range(0, len(keys) if len(vocabulary) else 0, BLOCK):
            block = keys[start : start + BLOCK]
            places = np.minimum(np.searchsorted(vocabulary, block), len(vocabulary) - 1)
            known = vocabulary[places] == block
            end = size + int(known.sum())
            row_of[size:end], columns[size:end] = rows[start : start + BLOCK][known], column[places[known]]
            size = end
        return row_of[:size], columns[:size]

    def find(self, rows: Rows) -> list[Found]:
        """Rows that share rare keys with ``rows``, at most ``limit`` for each; ascending rows give ordered answers."""
        queries = self._queries(rows)
        product = (queries @ self._postings).tocsr()
        query = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(product.indptr))
        found = product.indices.astype(np.int32, copy=False)
        similarity = product.data / (self._lengths[rows][query] * self._lengths[found])
        keep = (rows[query] != found) & (similarity >= self._min_similarity)
        query, found, similarity = query[keep], found[keep], np.minimum(similarity[keep], np.float32(1))
        keep = self._categories.compatible(rows[query], found)
        query, found, similarity = query[keep], found[keep], similarity[keep]
        best = strongest(query, similarity, found, self._limit)
        return [Found(self._source, rows[query[best]], found[best], similarity[best])]

    def _queries(self, rows: Rows) -> sparse.csr_matrix:
        """Squared weights of the rare keys of ``rows`` that fit in the budget, shape (rows, rare keys)."""
        counts = self._starts[rows + 1] - self._starts[rows]
        ends = np.cumsum(counts)
        places = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts) + np.repeat(self._starts[rows], counts)
        columns = self._keys.indices[places]
        query = np.repeat(np.arange(len(rows)), counts)
        named = np.cumsum(self._frequency[columns])
        before = np.concatenate([[0], named])[ends - counts]
        keep = (columns < self._rare) & (named - before[query] <= self._budget)
        columns, query = columns[keep], query[keep]
        values = (self._weight[columns] ** 2).astype(np.float32)
        return sparse.csr_matrix((values, (query, columns)), shape=(len(rows), self._rare))


def _vocabulary(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """Keys that occur at least twice, ascending, and how often; in parts, so that few keys are sorted at once."""
    parts = 1 + len(keys) // PARTITION
    found, often = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for part in range(parts):
        chosen = [np.empty(0, np.uint64)]
        for start in range(0, len(keys), BLOCK):
            block = np.asarray(keys[start : start + BLOCK])
            chosen.append(block[(block >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32) == part])
        distinct, counts = np.unique(np.concatenate(chosen), return_counts=True)
        found.append(distinct[counts > 1])
        often.append(counts[counts > 1])
    return np.concatenate(found), np.concatenate(often)
