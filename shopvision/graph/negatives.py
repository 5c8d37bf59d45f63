"""Triples that nobody says, drawn many at a time: another head, another tail or another relation.

Which end is replaced is drawn as Wang et al. 2014 (TransH) do: of a relation with many heads for each tail (many items
are red) seldom the head, which would often be true. Letters in shapes: n triples, m drawn, R relations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shopvision.graph.knowledge import triple_keys

_DRAWS = 4  # of what turned out to be true; the rest is left out of the loss

Ints = NDArray[np.int64]


class Corruption:
    """Draws wrong triples beside those of a graph.

    Attributes:
        head_share: (R,) how often the head is what is replaced, where it is not the relation.
    """

    def __init__(
        self, triples: Ints, entities: int, relations: int, *, relation_share: float = 0.2, alike: float = 0.5
    ) -> None:
        """Draw beside ``triples``.

        Args:
            triples: (n, 3), all that is known to be true.
            entities: how many there are.
            relations: how many there are.
            relation_share: how often the relation is replaced.
            alike: how often what takes the place of a head or a tail is one of the same relation (another colour), and
                not one of any. Items never take the place of values.

        Raises:
            UserError: the graph is too large.
        """
        self._entities, self._relations = entities, relations
        self._relation_share = relation_share if relations > 1 else 0.0
        self._alike = alike
        self._known = np.unique(triple_keys(triples, entities, relations))
        self._ends = [_Ends(triples[:, place], triples[:, 1], relations) for place in (0, 2)]
        count = np.bincount(triples[:, 1], minlength=relations).astype(np.float64)
        heads, tails = (np.maximum(ends.counts, 1) for ends in self._ends)
        tails_a_head, heads_a_tail = count / heads, count / tails
        self.head_share = np.divide(
            tails_a_head, tails_a_head + heads_a_tail, out=np.full(relations, 0.5), where=count > 0
        )

    def draw(self, right: Ints, generator: np.random.Generator) -> tuple[Ints, NDArray[np.bool_]]:
        """For each triple a wrong one that differs in one place.

        Args:
            right: (m, 3).
            generator: of the draw.

        Returns:
            (m, 3), and (m,) whether it is wrong indeed: where nearly everything is true, nothing wrong may be found.
        """
        wrong = right.copy()
        place = np.where(generator.random(len(right)) < self.head_share[right[:, 1]], 0, 2)
        place[generator.random(len(right)) < self._relation_share] = 1
        open_rows = np.arange(len(right))
        for _ in range(_DRAWS):
            if not len(open_rows):
                break
            wrong[open_rows, place[open_rows]] = self._others(right[open_rows], place[open_rows], generator)
            open_rows = open_rows[self.are_known(wrong[open_rows])]
        fine = np.ones(len(right), np.bool_)
        fine[open_rows] = False
        return wrong, fine

    def are_known(self, triples: Ints) -> NDArray[np.bool_]:
        """(m,) whether the graph says them."""
        keys = triple_keys(triples, self._entities, self._relations)
        places = np.minimum(np.searchsorted(self._known, keys), len(self._known) - 1)
        known: NDArray[np.bool_] = self._known[places] == keys
        return known

    def _others(self, right: Ints, place: Ints, generator: np.random.Generator) -> Ints:
        others = np.empty(len(right), np.int64)
        relation = place == 1
        step = generator.integers(1, max(2, self._relations), relation.sum())
        others[relation] = (right[relation, 1] + step) % self._relations
        for which, ends in zip((0, 2), self._ends, strict=True):
            mine = place == which
            others[mine] = ends.draw(right[mine, 1], self._alike, generator)
        return others


class _Ends:
    """The heads, or the tails, of a graph.

    Attributes:
        counts: (R,) how many different ones each relation has.
    """

    def __init__(self, ends: Ints, of_relation: Ints, relations: int) -> None:
        width = int(ends.max()) + 1
        pairs = np.unique(of_relation * width + ends)  # by one number: rows take many times as long
        self.counts = np.bincount(pairs // width, minlength=relations)
        self._by_relation = pairs % width
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._all = np.unique(ends)

    def draw(self, relations: Ints, alike: float, generator: np.random.Generator) -> Ints:
        """One for each of these relations: one of the relation in the share ``alike`` of all cases, else any."""
        drawn = self._all[generator.integers(len(self._all), size=len(relations))]
        same = (generator.random(len(relations)) < alike) & (self.counts[relations] > 0)
        count = self.counts[relations[same]]
        drawn[same] = self._by_relation[self._starts[relations[same]] + generator.integers(count, size=len(count))]
        return drawn
