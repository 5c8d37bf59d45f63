"""How pairs are scored: the models, and what their probabilities mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

KIND = "pair_scorer"
SCORER_ROLE = "pair_scorer"
BLOCKER_ROLE = "pair_blocker"


@dataclass(frozen=True)
class Thresholds:
    """A probability of ``same`` and above is that verdict, of ``different`` and below that one, else ``review``.

    Raises:
        UserError: they are out of order.
    """

    same: float
    different: float

    def __post_init__(self) -> None:
        if not 0 <= self.different <= self.same <= 1:
            raise UserError(
                f"Thresholds different={self.different}, same={self.same}: give 0 <= different <= same <= 1."
            )


@dataclass(frozen=True)
class FirstStage:
    """A cheap two-tower that decides the clear cases: probabilities of at most ``low`` and at least ``high``."""

    ref: ModelVersionRef
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"Cascade low={self.low}, high={self.high}: give 0 <= low <= high <= 1.")


@dataclass(frozen=True)
class Setup:
    """How pairs are scored.

    Raises:
        UserError: the first model would decide pairs that are for review.
    """

    ref: ModelVersionRef
    thresholds: Thresholds
    first: FirstStage | None = None

    def __post_init__(self) -> None:
        first, zone = self.first, self.thresholds
        if first is not None and (first.low > zone.different or first.high < zone.same):
            raise UserError(
                f"Cascade low={first.low}, high={first.high}: pairs from {zone.different:g} to {zone.same:g} are for "
                "review, so give low and high outside of that."
            )

    @property
    def models(self) -> tuple[ModelVersionRef, ...]:
        """The model versions that are asked, in order."""
        return (self.ref,) if self.first is None else (self.first.ref, self.ref)

    @property
    def options(self) -> bytes:
        """All that a score depends on beside the items and the model version."""
        first = "" if self.first is None else f" {self.first.ref.spec} {self.first.low} {self.first.high}"
        return f"{self.thresholds.same} {self.thresholds.different}{first}".encode()


def resolve(spec: str | None, role: str) -> ModelVersionRef:
    """The pair model called ``spec`` (``name:tag``), or the one active for ``role``; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(spec, role, KIND)


def thresholds_of(ref: ModelVersionRef) -> Thresholds:
    """Those the card was calibrated to.

    Raises:
        UserError: it has none.
    """
    found = ref.card.thresholds or {}
    if not {"same", "different"} <= found.keys():
        raise UserError(
            f"{ref.spec} has no calibrated thresholds: train it on labelled pairs, or give them with the job "
            '(`thresholds={"same": 0.9, "different": 0.1}`, of a cascade `cascade={"low": 0.1, "high": 0.9}`).'
        )
    return Thresholds(found["same"], found["different"])


def require_vectors(ref: ModelVersionRef) -> None:
    """Refuse a model without item vectors where they are needed.

    Raises:
        UserError: the model reads both items of a pair together.
    """
    if ref.card.architecture.arguments.get("axes", {}).get("interaction") != "two_tower":
        raise UserError(f"{ref.spec} has no item vectors: a two-tower model is needed to find or pre-sort candidates.")
