"""Several scorers of pairs that work as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows

if TYPE_CHECKING:
    from shopvision.encoders.tuning.part import TunablePart
    from shopvision.items.item import Item
    from shopvision.matching.scoring.batching import ShouldStop


class CombinedScorer(BaseScorer):
    """Members with one item vector: the members' own, one after the other.

    Attributes:
        members: the scorers.
    """

    def __init__(self, members: Sequence[BaseScorer]) -> None:
        """Take ``members`` together.

        Raises:
            UserError: they want pictures prepared in more than one way.
        """
        self.members = tuple(members)
        self.needs_text = any(member.needs_text for member in members)
        self.needs_picture = any(member.needs_picture for member in members)
        lengths = [member.vector_dimension or 0 for member in members]
        self._ends = np.cumsum(lengths)
        self.vector_dimension = int(self._ends[-1]) or None
        preparations = {member.preprocessing for member in members if member.preprocessing is not None}
        if len(preparations) > 1:
            raise UserError("These models want pictures prepared in different ways: take models of one preprocessing.")
        self.preprocessing = preparations.pop() if preparations else None

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """Those of all members."""
        return tuple(part for member in self.members for part in member.tunable_parts)

    def check(self, item: Item) -> None:
        """See ``BaseScorer``; what one member needs, all need."""
        for member in self.members:
            member.check(item)

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8] | None] | None) -> Floats:
        """See ``BaseScorer``."""
        vectors = [
            member.item_vectors(items, pictures if member.needs_picture else None)
            for member in self.members
            if member.vector_dimension is not None
        ]
        if not vectors:
            raise UserError("Nothing is kept of items: all members read both items of a pair at once.")
        return np.concatenate(vectors, axis=1)

    def _score_by(
        self,
        number: int,
        items: Sequence[Item],
        left: Rows,
        right: Rows,
        *,
        vectors: Floats | None,
        should_stop: ShouldStop | None,
    ) -> Floats:
        """One member's probabilities. It is given only the items of these pairs."""
        member = self.members[number]
        used, rows = np.unique(np.concatenate([left, right]), return_inverse=True)
        own = None
        if member.vector_dimension is not None and vectors is not None:
            end = int(self._ends[number])
            own = vectors[used, end - member.vector_dimension : end]
        return member.score(
            [items[row] for row in used.tolist()], rows[: len(left)], rows[len(left) :], own, should_stop=should_stop
        )
