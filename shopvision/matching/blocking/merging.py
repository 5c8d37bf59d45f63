"""What the sources find, made one list of pairs, each given once.

Partners are merged by reciprocal rank fusion (Cormack et al. 2009), which needs no common scale of similarities, and
the strongest of each item stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shopvision.items.item import pair_key
from shopvision.matching.blocking.inverted import Found, firsts, ranks, strongest
from shopvision.matching.blocking.rows import ItemRows, Rows
from shopvision.matching.options import SOURCES, BlockingOptions, Source
from shopvision.matching.stopping import ShouldStop, never, until_stopped

BATCH_ITEMS = 1_024
RANK_OFFSET = 60  # as published: the first places of one source do not outvote two sources

_BIT = {source: 1 << number for number, source in enumerate(SOURCES)}


@dataclass(frozen=True, slots=True)
class CandidatePair:
    """Two items that may be the same product.

    Attributes:
        left: the id that comes first in code point order.
        right: the other one.
        sources: what brought them together, in the order of ``SOURCES``.
        similarity: the greatest one that a source saw, 0 to 1.
    """

    left: str
    right: str
    sources: tuple[Source, ...]
    similarity: float


class Finder(Protocol):
    """A source of candidates."""

    def find(self, rows: Rows) -> list[Found]:
        """Partners of ``rows``, which ascend; those of one item from the most alike on."""


def stream_pairs(
    rows: ItemRows, due: Rows, finders: Sequence[Finder], options: BlockingOptions, folder: Path, *,
    should_stop: ShouldStop = never,
) -> Iterator[list[CandidatePair]]:  # fmt: skip
    """Pairs of the rows ``due``, which ascend, with any row.

    Of two due rows the first gives their pair if it kept the other, else the second does. To know what earlier rows
    kept, a file in ``folder`` holds ``4 * max_per_item`` bytes for each due row.
    """
    if not len(due):
        return
    kept = np.memmap(folder / "kept", np.int32, "w+", shape=(len(due), options.max_per_item))
    for start in until_stopped(range(0, len(due), BATCH_ITEMS), should_stop):
        batch = due[start : start + BATCH_ITEMS]
        query, found, bits, similarity = _merged([part for finder in finders for part in finder.find(batch)], options)
        mine = np.full((len(batch), options.max_per_item), -1, np.int32)
        mine[np.searchsorted(batch, query), ranks(query)] = found
        kept[start : start + len(batch)] = mine
        new = ~_given(query, found, due, kept)
        pairs = [
            CandidatePair(*pair_key(rows.item_id(a), rows.item_id(b)), _sources(mask), round(value, 4))
            for a, b, mask, value in zip(
                query[new].tolist(), found[new].tolist(), bits[new].tolist(), similarity[new].tolist(), strict=True
            )
        ]
        if pairs:
            yield pairs


def _merged(
    parts: Sequence[Found], options: BlockingOptions
) -> tuple[Rows, Rows, NDArray[np.int64], NDArray[np.float32]]:
    """Query, found, bits of the sources, similarity: by query, from the strongest partner on."""
    query = np.concatenate([np.empty(0, np.int32), *(part.query for part in parts)])
    found = np.concatenate([np.empty(0, np.int32), *(part.found for part in parts)])
    similarity = np.concatenate([np.empty(0, np.float32), *(part.similarity for part in parts)])
    bits = np.concatenate([np.empty(0, np.int64), *(_bits(part, options) for part in parts)])
    places = np.concatenate([np.empty(0, np.int64), *(ranks(part.query) for part in parts)])
    strength = (1 / (RANK_OFFSET + places)).astype(np.float32)
    order = np.lexsort((found, query))
    order = order[bits[order] > 0]
    query, found = query[order], found[order]
    starts = np.flatnonzero(firsts(query, found))
    if not len(starts):
        return query, found, bits[order], similarity[order]
    query, found = query[starts], found[starts]
    bits = np.bitwise_or.reduceat(bits[order], starts)
    similarity = np.maximum.reduceat(similarity[order], starts)
    strength = np.add.reduceat(strength[order], starts)
    best = strongest(query, strength, found, options.max_per_item)
    return query[best], found[best], bits[best], similarity[best]


def _bits(part: Found, options: BlockingOptions) -> NDArray[np.int64]:
    """Which of the wanted sources a find counts as: pictures that are nearly equal are the same picture."""
    bits = np.full(len(part.query), _BIT[part.source] if part.source in options.sources else 0, np.int64)
    if part.source == "picture" and "same_picture" in options.sources:
        bits[part.similarity >= options.same_picture_similarity] |= _BIT["same_picture"]
    return bits


def _given(query: Rows, found: Rows, due: Rows, kept: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether ``found`` is an earlier due row that kept ``query``."""
    places = np.minimum(np.searchsorted(due, found), len(due) - 1)
    given: NDArray[np.bool_] = (due[places] == found) & (found < query)
    given[given] = (kept[places[given]] == query[given, None]).any(1)
    return given


@cache
def _sources(mask: int) -> tuple[Source, ...]:
    return tuple(source for source, bit in _BIT.items() if mask & bit)
