"""An ensemble of pair scorers as one scorer; ``ensemble_card`` says what it is as a model version.

A pair is scored by the members that can read both items, so an item without a picture goes without those that need one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import ItemError, UserError
from shopvision.matching.families.card import KIND, read_card
from shopvision.matching.scoring.combined_scorer import CombinedScorer
from shopvision.matching.scoring.ensemble_card import FAMILY, checked_arguments, member_names
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.card import CARD_FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.items.item import Item
    from shopvision.matching.scoring.batching import ShouldStop
    from shopvision.matching.scoring.item_pictures import Picture
    from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows
    from shopvision.models.kinds import Precision


class EnsembleScorer(CombinedScorer):
    """An ensemble as one scorer. Not thread-safe.

    Attributes:
        card: of the model version.
        arguments: how members are weighed.
        names: of the members.
    """

    members: tuple[BaseScorer, ...]

    def __init__(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> None:
        """Load a model version; see ``PairScorer``.

        Raises:
            UserError: no ensemble.
            JobError: a member's weights do not fit its architecture exactly.
        """
        self.card = read_card(folder)
        if self.card.architecture.name != FAMILY:
            raise UserError(f"{self.card.spec} is a {KIND} of the family {self.card.architecture.name}, no ensemble.")
        where = f"{folder / CARD_FILE}: architecture.arguments"
        self.arguments = checked_arguments(self.card.architecture.arguments, where)
        super().__init__(
            [PairScorer(folder / place, device=device, precision=precision) for place in self.arguments.members]
        )
        self.names = member_names(self.arguments.specs)
        seen = self.arguments.seen_categories
        self._seen = None if seen is None else frozenset(seen)

    def check(self, item: Item) -> None:
        """See ``BaseScorer``; one member that can read the item suffices."""
        refused: ItemError | None = None
        for member in self.members:
            try:
                member.check(item)
            except ItemError as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise refused

    def readable_pairs(self, items: Sequence[Item], left: Rows, right: Rows) -> NDArray[np.bool_]:
        """See ``BaseScorer``; where one item has a text alone and the other a picture, perhaps no member reads both."""
        unseen = self._unseen(items, left, right)
        every = [self._asked(number, items, left, right, unseen) for number in range(len(self.members))]
        return np.asarray(np.any(every, axis=0))

    def _member_vectors(
        self, member: BaseScorer, items: Sequence[Item], pictures: Sequence[Picture | None] | None
    ) -> Floats:
        """Zeros of items that the member cannot read: it is not asked about them."""
        vectors = np.zeros((len(items), member.vector_dimension or 0), np.float32)
        rows: list[int] = np.flatnonzero(_reads(member, items)).tolist()
        if rows:
            own = None if pictures is None else [pictures[row] for row in rows]
            vectors[rows] = member.item_vectors([items[row] for row in rows], own)
        return vectors

    def member_probabilities(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None = None
    ) -> NDArray[np.float64]:
        """What each member says of pairs; arguments and errors as of ``score``.

        Returns:
            (n, members); NaN where a member cannot read both items, or is not asked about pairs of their categories.
        """
        vectors = self._checked(items, left, right, vectors)
        return self._member_probabilities(items, left, right, vectors, None)[0]

    def combine(
        self, probabilities: NDArray[np.float64], items: Sequence[Item], left: Rows, right: Rows
    ) -> NDArray[np.float64]:
        """(n,) probabilities of pairs from (n, members) of ``member_probabilities``; NaN where no member says one."""
        result = np.full(len(left), np.nan)
        told = ~np.isnan(probabilities).all(axis=1)
        if told.any():
            result[told] = self.arguments.combine(probabilities[told], self._unseen(items, left, right)[told])
        return result

    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        table, reached = self._member_probabilities(items, left, right, vectors, should_stop)
        # A pair has a probability when all members that are asked about it have scored it.
        table[~reached] = np.nan
        return np.asarray(self.combine(table, items, left, right), np.float32)

    def _member_probabilities(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(n, members), and (n,) whether all members that are asked about a pair were reached before the stop."""
        unseen = self._unseen(items, left, right)
        table = np.full((len(left), len(self.members)), np.nan)
        reached = np.ones(len(left), bool)
        for number in range(len(self.members)):
            asked = np.flatnonzero(self._asked(number, items, left, right, unseen))
            table[asked, number] = self._score_by(
                number, items, left[asked], right[asked], vectors=vectors, should_stop=should_stop
            )
            reached[asked] &= ~np.isnan(table[asked, number])
        return table, reached

    def _unseen(self, items: Sequence[Item], left: Rows, right: Rows) -> NDArray[np.bool_]:
        if self._seen is None:
            return np.zeros(len(left), bool)
        new = np.array([item.category not in self._seen for item in items], bool)
        unseen: NDArray[np.bool_] = new[left] | new[right]
        return unseen

    def _asked(
        self, number: int, items: Sequence[Item], left: Rows, right: Rows, unseen: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """(n,) whether a member is asked about a pair: it has a threshold for its group, and reads both items."""
        thresholds = self.arguments.thresholds
        by_group = [thresholds is None or row[number] is not None for row in thresholds or ((), ())]
        reads = _reads(self.members[number], items)
        return np.asarray(np.array(by_group)[unseen.astype(np.int64)] & reads[left] & reads[right])


def _reads(member: BaseScorer, items: Sequence[Item]) -> NDArray[np.bool_]:
    """(m,) whether a member can read each item."""
    reads = np.ones(len(items), np.bool_)
    for row, item in enumerate(items):
        try:
            member.check(item)
        except ItemError:
            reads[row] = False
    return reads


def load_scorer(
    folder: Path, *, device: str | None = None, precision: Precision = "auto"
) -> PairScorer | EnsembleScorer:
    """The scorer of any model version that scores pairs; see ``PairScorer``."""
    scorer = EnsembleScorer if read_card(folder).architecture.name == FAMILY else PairScorer
    return scorer(folder, device=device, precision=precision)
