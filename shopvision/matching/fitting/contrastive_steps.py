"""Which offers meet in a step of the contrastive stage: products that the model takes for one another come together."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.index.scanning import scan_parameters, scanned_index

if TYPE_CHECKING:
    from shopvision.matching.fitting.known_products import KnownProducts

Vectors: TypeAlias = NDArray[np.float32]

NEIGHBOURS = 30  # of an offer that are looked at
MOST_OFFERS = 6  # of a product in a step


def hard_products(known: KnownProducts, vectors: Vectors) -> list[list[int]]:
    """Of each product the others that it is told from, the most alike first.

    They are found among the nearest neighbours of its offers, and among those that labels call different. Of more than
    20,000 offers neighbours are approximate (see ``shopvision.index.scanning``).

    Args:
        known: m offers.
        vectors: (m, d) of unit length.

    Raises:
        JobError: their index would not fit in memory.
    """
    index, cells = scanned_index(vectors)
    index.add(vectors)
    likeness, found = index.search(vectors, min(NEIGHBOURS, len(vectors)), params=scan_parameters(cells))
    rows = np.repeat(np.arange(len(vectors)), found.shape[1])
    near = found.ravel()
    kept = near >= 0
    kept[kept] = known.repel(rows[kept], near[kept])
    best: list[dict[int, float]] = [{} for _ in range(known.count)]
    p, q, alike = known.product[rows[kept]], known.product[near[kept]], likeness.ravel()[kept]
    for own, other, value in zip(p.tolist(), q.tolist(), alike.tolist(), strict=True):
        best[own][other] = max(best[own].get(other, -1.0), value)
    first = np.zeros(known.count, np.int64)
    first[known.product[::-1]] = np.arange(len(vectors))[::-1]
    for own in range(known.count):
        for other in known.labelled_different(own):
            best[own].setdefault(other, float(vectors[first[own]] @ vectors[first[other]]))
    return [sorted(others, key=lambda other: (-others[other], other)) for others in best]


def shown_offers(known: KnownProducts, *, twins: bool) -> list[list[int]]:
    """Rows of the offers of each product; the only one of a product twice where ``twins`` are wanted."""
    offers: list[list[int]] = [[] for _ in range(known.count)]
    for row, product in enumerate(known.product.tolist()):
        offers[product].append(row)
    return [own * 2 if len(own) == 1 and twins else own for own in offers]


def steps_of_epoch(
    offers: list[list[int]], hard: list[list[int]], steps: int, most: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Rows of the offers of each step: every product comes once, with the hardest of those that did not come yet.

    Args:
        offers: of each product, of which ``MOST_OFFERS`` are drawn.
        hard: of each product the others that come with it, the hardest first.
        steps: how many; they are alike in length.
        most: others that come with a product.
        generator: draws.
    """
    order: dict[int, None] = {}
    for product in generator.permutation(len(offers)).tolist():
        if product not in order:
            order[product] = None
            order |= dict.fromkeys([other for other in hard[product] if other not in order][:most])
    drawn = [generator.permutation(offers[product])[:MOST_OFFERS] for product in order]
    ends = np.cumsum([len(own) for own in drawn])
    place = (ends - 1) * steps // ends[-1]  # of the step that each product is in
    return [np.concatenate(part) for part in np.split(_objects(drawn), np.searchsorted(place, np.arange(1, steps)))]


def _objects(arrays: list[NDArray[np.int64]]) -> NDArray[np.object_]:
    """The arrays as the elements of one, also where all are of one length."""
    result = np.empty(len(arrays), np.object_)
    result[:] = arrays
    return result
