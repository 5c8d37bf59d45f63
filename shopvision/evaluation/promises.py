"""What is asked of automatic verdicts, and what labelled pairs have shown of it: plain values, as a card keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopvision.errors import UserError

TABLE = (0.90, 0.95, 0.98, 0.99)
"""Precisions that a card tells of, beside the one that was asked for."""


class Promise(BaseModel):
    """What is asked.

    Attributes:
        precision: at least this share of the pairs called "same" are the same item.
        missed: at most this share of the pairs called "different" are the same item.
        confidence: of each of the two: where models are taught over and over, this share of them keeps it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: float = Field(0.95, gt=0.5, lt=1)
    missed: float = Field(0.02, gt=0, lt=0.5)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    def asking(self, **given: float | None) -> Self:
        """The same, but for what is given and not None.

        Raises:
            UserError: a share that cannot be asked for; the message names it.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        try:
            return type(self).model_validate(self.model_dump() | chosen)
        except ValidationError as error:
            first = error.errors()[0]
            name = first["loc"][0]
            room = "0 and 0.5, such as 0.02" if name == "missed" else "0.5 and 1, such as 0.95"
            raise UserError(f"{name} is {first['input']}: give a share between {room}.") from None


class ShownSame(BaseModel):
    """What was shown of one precision.

    Attributes:
        precision: what was asked.
        threshold: lowest probability from which on it was shown; None where it was not.
        pairs: pairs of the evidence at or above.
        lower_bound: of their precision, as it was tested (Clopper and Pearson).
        recall: share of all pairs of the same item that are at or above, and so need no person.
        review_share: share of all pairs that is for a person, with the card's threshold ``different``.
        positives_needed: pairs of the same item that would show it at the present rate of mistakes, where it was not
            shown; None where the model itself is not that good.
        too_few: whether there are too few pairs to know that rate; then ``positives_needed`` is without a mistake.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: float
    threshold: float | None
    pairs: int
    lower_bound: float | None
    recall: float
    review_share: float
    positives_needed: int | None = None
    too_few: bool = False


class ShownDifferent(BaseModel):
    """What was shown of the share of missed pairs.

    Attributes:
        missed: what was asked.
        threshold: highest probability down from which it was shown; None where it was not.
        pairs: pairs of the evidence at or below.
        upper_bound: of the share of the same item among them, as it was tested.
        negatives_needed: as ``positives_needed``, of pairs of different items.
        too_few: as there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    missed: float
    threshold: float | None
    pairs: int
    upper_bound: float | None
    negatives_needed: int | None = None
    too_few: bool = False


class EvidenceCounts(BaseModel):
    """Which pairs the evidence is: of validation, and of training where models that had not seen them scored them.

    Attributes:
        validation: pairs.
        validation_positives: those of the same item among them.
        cross_fitted: pairs.
        cross_fitted_positives: those of the same item among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: int
    validation_positives: int
    cross_fitted: int = 0
    cross_fitted_positives: int = 0

    @property
    def positives(self) -> int:
        """All pairs of the same item."""
        return self.validation_positives + self.cross_fitted_positives

    def told(self) -> str:
        """In words."""
        words = f"{self.validation:,} validation pairs ({self.validation_positives:,} the same)"
        if not self.cross_fitted:
            return words
        return f"{words}, {self.cross_fitted:,} cross-fitted ones ({self.cross_fitted_positives:,} the same)"


class ShownPromises(BaseModel):
    """What the evidence has shown; see ``shopvision.evaluation.thresholds``.

    Attributes:
        asked: the promise that the card's thresholds keep.
        evidence: from which pairs.
        same: by rising precision; the one that was asked is among them.
        different: of ``asked.missed``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: Promise
    evidence: EvidenceCounts
    same: tuple[ShownSame, ...]
    different: ShownDifferent

    def rows(self) -> Iterator[tuple[str, str]]:
        """What a table shows: (promise, what came of it)."""
        yield f"evidence, at confidence {self.asked.confidence:g}", self.evidence.told()
        for shown in self.same:
            yield f"same, precision {shown.precision:g}", self._told_same(shown)
        yield f"different, missed {self.different.missed:g}", self._told_different(self.different)

    def shortfalls(self) -> list[str]:
        """One line for each part of what was asked that was not shown, with what it would take."""
        lines = [
            f"Precision {shown.precision:g} {self._told_same(shown)}"
            for shown in self.same
            if shown.precision == self.asked.precision and shown.threshold is None
        ]
        if self.different.threshold is None:
            lines.append(f"At most {self.different.missed:g} missed {self._told_different(self.different)}")
        return lines

    def _told_same(self, shown: ShownSame) -> str:
        if shown.threshold is None:
            there = f"; there are {self.evidence.positives:,}"
            pairs = f"pairs of the same item{there}"
            return _not_shown(shown.positives_needed, pairs, "same", too_few=shown.too_few)
        return (
            f"from {shown.threshold:.4f} on: {shown.pairs:,} pairs, at least {shown.lower_bound:.3f} right, "
            f"{shown.recall:.0%} of the same items found, {shown.review_share:.0%} of all pairs for review"
        )

    def _told_different(self, shown: ShownDifferent) -> str:
        if shown.threshold is None:
            there = self.evidence.validation + self.evidence.cross_fitted - self.evidence.positives
            needed = f"pairs of different items; there are {there:,}"
            return _not_shown(shown.negatives_needed, needed, "different", too_few=shown.too_few)
        return f"down from {shown.threshold:.4f}: {shown.pairs:,} pairs, at most {shown.upper_bound:.3f} the same"


def _not_shown(needed: int | None, pairs: str, verdict: str, *, too_few: bool) -> str:
    if needed is None:
        return (
            f"was not shown, so nothing is called {verdict}: the model's surest pairs are not that right, and more of "
            "them would not help; ask for less, or teach it more."
        )
    rate = "without a single mistake it takes" if too_few else "at the present rate of mistakes it takes about"
    return f"was not shown, so nothing is called {verdict}: {rate} {needed:,} {pairs}."
