"""How good blocking is: which share of the pairs known to be equal it finds, and for how many candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shopvision.items.item import Item, pair_key
from shopvision.matching.blocking.candidates import pairs_of_items
from shopvision.matching.blocking.merging import CandidatePair
from shopvision.matching.options import SOURCES, BlockingOptions, Source


@dataclass(frozen=True)
class BlockingRecall:
    """Recall of known positive pairs (pair completeness) and the candidates it took.

    Attributes:
        positives: pairs known to be equal.
        pairs: candidates.
        recall: share of the positives among the candidates; 1.0 where there are no positives.
        by_source: share of the positives that each source brought, those brought by others too.
    """

    positives: int
    pairs: int
    recall: float
    by_source: Mapping[Source, float]

    def candidates_per_item(self, items: int) -> float:
        """Mean number of partners of an item, where each pair makes two items partners."""
        return 2 * self.pairs / max(1, items)

    def reduction_ratio(self, items: int) -> float:
        """Share of all pairs of so many items that need no look."""
        return 1 - self.pairs / max(1, items * (items - 1) // 2)


def blocking_recall(
    positives: Iterable[tuple[str, str]], candidates: Iterable[Sequence[CandidatePair]]
) -> BlockingRecall:
    """Recall of ``positives``, pairs of ids in any order, among batches of candidates.

    Raises:
        ItemError: a positive is a pair of an item with itself.
    """
    wanted = {pair_key(*pair) for pair in positives}
    pairs, found, by_source = 0, 0, Counter[Source]()
    for batch in candidates:
        pairs += len(batch)
        for pair in batch:
            if (pair.left, pair.right) in wanted:
                found += 1
                by_source.update(pair.sources)
    count = max(1, len(wanted))
    shares = {source: by_source[source] / count for source in SOURCES if by_source[source]}
    return BlockingRecall(len(wanted), pairs, found / count if wanted else 1.0, shares)


def measure(
    items: Sequence[Item], positives: Iterable[tuple[str, str]], options: BlockingOptions, *,
    text_vectors: NDArray[np.float32] | None = None, pictures: tuple[Sequence[int], NDArray[np.float32]] | None = None,
) -> BlockingRecall:  # fmt: skip
    """``blocking_recall`` of ``pairs_of_items`` with these arguments."""
    return blocking_recall(positives, pairs_of_items(items, options, text_vectors=text_vectors, pictures=pictures))
