"""Several scorers of pairs that work as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import UserError
from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.encoders.tuning.part import TunablePart
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.items.item import Item
    from shopvision.matching.scoring.batching import ShouldStop
    from shopvision.matching.scoring.item_pictures import Picture


class CombinedScorer(BaseScorer):
    """Members with one item vector: the members' own, one after the other.

    Attributes:
        members: the scorers.
    """

    def __init__(self, members: Sequence[BaseScorer]) -> None:
        """Take ``members`` together; a picture is prepared once for each way in which they want it."""
        self.members = tuple(members)
        self.needs_text = any(member.needs_text for member in members)
        self.needs_picture = any(member.needs_picture for member in members)
        lengths = [member.vector_dimension or 0 for member in members]
        self._ends = np.cumsum(lengths)
        self.vector_dimension = int(self._ends[-1]) or None
        preparations = tuple(dict.fromkeys(one for member in members for one in _several(member.preprocessing)))
        self._preparations = preparations
        self.preprocessing = preparations if len(preparations) > 1 else preparations[0] if preparations else None

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """Those of all members."""
        return tuple(part for member in self.members for part in member.tunable_parts)

    def check(self, item: Item) -> None:
        """See ``BaseScorer``; what one member needs, all need."""
        for member in self.members:
            member.check(item)

    def readable_pairs(self, items: Sequence[Item], left: Rows, right: Rows) -> NDArray[np.bool_]:
        """See ``BaseScorer``; what one member needs, all need."""
        every = [member.readable_pairs(items, left, right) for member in self.members]
        return np.asarray(np.all(every, axis=0))

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[Picture | None] | None) -> Floats:
        """See ``BaseScorer``."""
        vectors = [
            self._member_vectors(member, items, self._prepared_for(member, pictures))
            for member in self.members
            if member.vector_dimension is not None
        ]
        if not vectors:
            raise UserError("Nothing is kept of items: all members read both items of a pair at once.")
        return np.concatenate(vectors, axis=1)

    def _member_vectors(
        self, member: BaseScorer, items: Sequence[Item], pictures: Sequence[Picture | None] | None
    ) -> Floats:
        """What one member keeps of all items."""
        return member.item_vectors(items, pictures)

    def _prepared_for(
        self, member: BaseScorer, pictures: Sequence[Picture | None] | None
    ) -> Sequence[Picture | None] | None:
        """The pictures as one member wants them."""
        if pictures is None or member.preprocessing is None:
            return None
        if len(self._preparations) == 1:
            return pictures
        places = [self._preparations.index(one) for one in _several(member.preprocessing)]
        if len(places) > 1:
            return [None if picture is None else tuple(picture[place] for place in places) for picture in pictures]
        return [None if picture is None else picture[places[0]] for picture in pictures]

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


def _several(preprocessing: Preprocessing | tuple[Preprocessing, ...] | None) -> tuple[Preprocessing, ...]:
    if preprocessing is None:
        return ()
    return preprocessing if isinstance(preprocessing, tuple) else (preprocessing,)
