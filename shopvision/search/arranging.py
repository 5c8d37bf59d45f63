"""From pictures that are near to the items that are shown: in order, one per style, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shopvision.fashion.composition.routing import Routes

Vectors = NDArray[np.float32]

# Lab distances beyond this count as this: black and white are so far apart.
FARTHEST_COLOUR = 100.0
ONE_ENCODER = Routes()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that was found, as far as the order goes.

    Attributes:
        key: of the picture, the caller's own.
        item_id: whose it is.
        style: items of one style are variants; of most items their own id.
        similarity: cosine.
        is_comparable: to the query, because one encoder made both; else the similarity means nothing.
        fits: every filter.
        colour_difference: distance in CIELAB; None where it is not known.
        content: equal for pictures with equal bytes; None where they are not known.
        vector: unit length, shape (d,).
    """

    key: tuple[int, int]
    item_id: str
    style: str
    similarity: float
    fits: bool
    colour_difference: float | None
    content: tuple[bytes, int] | None
    vector: Vectors
    is_comparable: bool = True


@dataclass(slots=True)
class Shown:
    """An item that is shown, and those it stands for."""

    candidate: Candidate
    variants: list[str] = field(default_factory=list)

    def add(self, item_ids: Sequence[str]) -> None:
        """Note items that are not shown beside it."""
        new = dict.fromkeys(item_ids)
        self.variants += [one for one in new if one != self.candidate.item_id and one not in self.variants]


def arrange(
    candidates: Sequence[Candidate],
    k: int,
    *,
    colour: float = 0.0,
    nearly_same: float = 1.0,
    routes: Routes = ONE_ENCODER,
) -> list[Shown]:
    """The items to show, the best first.

    Args:
        candidates: pictures, in any order.
        k: at most so many items.
        colour: its share of the order.
        nearly_same: a cosine; of two items whose pictures are nearer, one is shown.
        routes: which encoders the vectors are of.
    """
    styles: dict[str, Shown] = {}
    for candidate in in_order(candidates, colour):
        styles.setdefault(candidate.style, Shown(candidate)).add([candidate.item_id])
    return _distinct(list(styles.values()), k, nearly_same, routes)


def in_order(candidates: Sequence[Candidate], colour: float) -> list[Candidate]:
    """Those that fit first, then what can be compared, each part by falling worth; of equals the first stays first.

    The worth is ``(1 - colour) * similarity + colour * closeness`` with ``closeness = 1 - difference / 100``, not below
    0. A picture whose colour is not known is as close as the others are on average: that speaks neither for nor against
    it.
    """
    worth = np.array([candidate.similarity for candidate in candidates], np.float64)
    if colour:
        known = [_closeness(one.colour_difference) for one in candidates if one.colour_difference is not None]
        average = sum(known) / len(known) if known else 0.0
        closeness = [
            average if one.colour_difference is None else _closeness(one.colour_difference) for one in candidates
        ]
        worth = (1 - colour) * worth + colour * np.array(closeness, np.float64)

    def order(place: int) -> tuple[bool, bool, float]:
        return not candidates[place].fits, not candidates[place].is_comparable, -worth[place]

    places = sorted(range(len(candidates)), key=order)
    return [candidates[place] for place in places]


def _closeness(difference: float) -> float:
    return 1.0 - min(difference, FARTHEST_COLOUR) / FARTHEST_COLOUR


def _distinct(shown: Sequence[Shown], k: int, nearly_same: float, routes: Routes) -> list[Shown]:
    """The first ``k`` of which no two have nearly the same picture."""
    kept: list[Shown] = []
    for one in shown:
        twin = _twin(one.candidate, kept, nearly_same, routes)
        if twin is not None:
            twin.add([one.candidate.item_id, *one.variants])
        elif len(kept) == k:
            break
        else:
            kept.append(one)
    return kept


def _twin(candidate: Candidate, kept: Sequence[Shown], nearly_same: float, routes: Routes) -> Shown | None:
    if not kept:
        return None
    for one in kept:
        if candidate.content is not None and candidate.content == one.candidate.content:
            return one
    products = np.stack([one.candidate.vector for one in kept]) @ candidate.vector
    cosines = np.where(routes.within(products), np.minimum(routes.similarity(products), 1.0), -1.0)
    nearest = int(np.argmax(cosines))
    return kept[nearest] if cosines[nearest] > nearly_same else None
