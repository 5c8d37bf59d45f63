"""An ensemble of pair scorers as a model version: a folder that holds its members, and how their words are weighed.

A pair is scored by the members that can read both items, so an item without a picture goes without those that need one.

``card.json`` is that of a pair scorer of the family ``ensemble``; every member is a whole model version in
``members/<number>``. Whether a pair's categories are among those of training can choose between two sets of thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shopvision.errors import ItemError, UserError
from shopvision.evaluation.calibration import apply, check_thresholds
from shopvision.matching.families.card import KIND, read_card
from shopvision.matching.scoring.combined_scorer import CombinedScorer
from shopvision.matching.scoring.ensemble_rules import LogisticStacking, f1_vote, group_thresholds, threshold_margin
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.card import CARD_FILE, Architecture, ModelCard
from shopvision.models.version_folder import FileWriter, member_folder, write_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.items.item import Item
    from shopvision.matching.scoring.batching import ShouldStop
    from shopvision.matching.scoring.item_pictures import Picture
    from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows
    from shopvision.models.kinds import Precision

FAMILY = "ensemble"


class EnsembleArguments(BaseModel):
    """How members' probabilities become one, stored in ``architecture.arguments`` of the card.

    Attributes:
        family: ``ensemble``.
        members: folders of the members within the model version.
        specs: ``name:tag`` of the members, as they were.
        method: ``threshold_margin`` sums distances from the thresholds, ``f1_vote`` lets every member vote with its F1,
            ``stacking`` is a logistic regression.
        thresholds: of the first two, (2, members): for pairs of seen and of unseen categories; a member without a
            threshold (null) is not asked about such pairs.
        f1: of ``f1_vote``, (members).
        stacking: of ``stacking``, from ``LogisticStacking.to_json``.
        seen_categories: of training; None where pairs are not told apart.
        calibration: from the method's number to a probability. That number is the sum, the difference of the votes
            (same minus different), or the log-odds of the regression.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Literal["ensemble"] = "ensemble"
    members: tuple[str, ...] = Field(min_length=1)
    specs: tuple[str, ...]
    method: Literal["threshold_margin", "f1_vote", "stacking"]
    thresholds: tuple[tuple[float | None, ...], tuple[float | None, ...]] | None = None
    f1: tuple[float, ...] | None = None
    stacking: dict[str, Any] | None = None
    seen_categories: tuple[str, ...] | None = None
    calibration: dict[str, Any] = {"method": "none"}

    @model_validator(mode="after")
    def _fit_the_method(self) -> EnsembleArguments:
        rows = self.thresholds or ()
        weights = () if self.stacking is None else self.stacking.get("weights", ())
        needed: dict[str, list[Sequence[Any]]] = {
            "threshold_margin": [*rows] or [()],
            "f1_vote": [*rows, self.f1 or ()],
            "stacking": [weights],
        }
        for values in [*needed[self.method], self.specs]:
            if len(values) != len(self.members):
                raise ValueError(f"{self.method} of {len(self.members)} members needs a number for each of them")
        return self

    def combine(self, probabilities: ArrayLike, unseen: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of pairs from those of the members.

        Args:
            probabilities: (n, members); NaN where a member did not score the pair.
            unseen: (n,) whether either item's category is new.

        Returns:
            (n,), calibrated.
        """
        return apply(self.calibration, self.margins(probabilities, unseen))

    def margins(self, probabilities: ArrayLike, unseen: ArrayLike) -> NDArray[np.float64]:
        """As ``combine``, before calibration: "the same" where it is at least 0; for fitting the calibration."""
        if self.method == "stacking":
            return LogisticStacking.from_json(self.stacking or {}).log_odds(probabilities)
        table = np.array([[np.nan if value is None else value for value in row] for row in self.thresholds or ()])
        thresholds = group_thresholds(np.asarray(unseen, bool), table)
        if self.method == "threshold_margin":
            return threshold_margin(probabilities, thresholds)
        different, same = f1_vote(probabilities, thresholds, np.array(self.f1))
        return same - different


def save_ensemble(
    folder: Path,
    members: Sequence[Path],
    arguments: EnsembleArguments,
    *,
    name: str,
    thresholds: dict[str, float],
    tag: str | None = None,
    more_files: Sequence[FileWriter] = (),
    **card_fields: Any,
) -> ModelCard:
    """Write a model version with copies of its members, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: empty, or not there.
        members: folders of model versions, in the order of the arguments' numbers.
        arguments: see ``EnsembleArguments``; ``ensemble_arguments`` makes them.
        name: of the ensemble.
        thresholds: probabilities of ``same``, ``different`` and ``decision``.
        tag: by default made from the content.
        more_files: write what else shall lie in the folder.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics, promises.

    Raises:
        UserError: a member is no pair scorer, or itself an ensemble; thresholds out of order.
    """
    check_thresholds(thresholds)
    for member in members:
        card = read_card(member)
        if card.architecture.name == FAMILY:
            raise UserError(f"{card.spec} is itself an ensemble: name its members instead.")
    return write_version(
        folder,
        [
            *(member_folder(source, place) for source, place in zip(members, arguments.members, strict=True)),
            *more_files,
        ],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(library="shopvision", name=FAMILY, arguments=arguments.model_dump(mode="json")),
        source=f"{FAMILY} of {', '.join(arguments.specs)}",
        thresholds=thresholds,
        **card_fields,
    )


def ensemble_arguments(members: Sequence[Path], method: str, **fields: Any) -> EnsembleArguments:
    """Arguments of an ensemble of these model versions.

    Args:
        members: their folders.
        method: see ``EnsembleArguments``, as the further fields.

    Raises:
        UserError: a member is no pair scorer, or the fields do not fit the method.
    """
    specs = tuple(read_card(folder).spec for folder in members)
    places = tuple(f"members/{number}" for number in range(len(members)))
    return _arguments({"members": places, "specs": specs, "method": method, **fields}, "ensemble")


def _arguments(fields: dict[str, Any], where: str) -> EnsembleArguments:
    try:
        return EnsembleArguments.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {f'{field}: ' if field else ''}{first['msg']}.") from None


class EnsembleScorer(CombinedScorer):
    """An ensemble as one scorer. Not thread-safe.

    Attributes:
        card: of the model version.
        arguments: how members are weighed.
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
        self.arguments = _arguments(self.card.architecture.arguments, where)
        super().__init__(
            [PairScorer(folder / place, device=device, precision=precision) for place in self.arguments.members]
        )
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

    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        # A pair has a probability when all members that are asked about it have scored it.
        unseen = self._unseen(items, left, right)
        table = np.full((len(left), len(self.members)), np.nan)
        reached = np.ones(len(left), bool)
        for number in range(len(self.members)):
            asked = np.flatnonzero(self._asked(number, items, left, right, unseen))
            table[asked, number] = self._score_by(
                number, items, left[asked], right[asked], vectors=vectors, should_stop=should_stop
            )
            reached[asked] &= ~np.isnan(table[asked, number])
        reached &= ~np.isnan(table).all(axis=1)
        result = np.full(len(left), np.nan, np.float32)
        if reached.any():
            result[reached] = self.arguments.combine(table[reached], unseen[reached])
        return result

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
