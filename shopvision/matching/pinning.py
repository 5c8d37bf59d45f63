"""Which models a matching asks, and what their probabilities mean: fixed when a job begins, the same for all chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shopvision.errors import UserError
from shopvision.matching.options import CascadeOptions, MatchingParams, Thresholds

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

SCORER_ROLE = "pair_scorer"
BLOCKER_ROLE = "pair_blocker"
NONE = "none"  # of a blocker: no vectors are compared


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
class ScoringMethod:
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


def pin(params: MatchingParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job has nothing to do while no model serves the role; whoever asks for more gets an error.

    Raises:
        UserError: a model is unknown, cannot do what is asked of it, or limits contradict each other.
        JobError: no model serves the role.
    """
    from shopvision import models

    active = models.serves(SCORER_ROLE)
    asked = (params.model, params.item_ids, params.pairs_file)
    if active is None and asked == (None, None, None) and params.scope == "changed":
        return {}
    ref = resolve(params.model, SCORER_ROLE)
    thresholds = params.thresholds or thresholds_of(ref)
    cascade = _pinned_cascade(thresholds, given=params.cascade)
    _method(ref, thresholds, cascade=cascade)
    group = ref.spec == active if params.group is None else params.group
    return {"model": ref.spec, "blocker": _pinned_blocker(params), "cascade": cascade, "group": group}


def scoring_method(params: MatchingParams) -> ScoringMethod:
    """How pairs are scored, by pinned parameters."""
    ref = resolve(params.model, SCORER_ROLE)
    return _method(ref, params.thresholds or thresholds_of(ref), cascade=params.cascade)


def blocker_of(params: MatchingParams) -> ModelVersionRef | None:
    """Whose item vectors find candidates, by pinned parameters."""
    return None if params.blocker in {None, NONE} else resolve(params.blocker, BLOCKER_ROLE)


def _method(ref: ModelVersionRef, thresholds: Thresholds, *, cascade: bool | CascadeOptions) -> ScoringMethod:
    if not isinstance(cascade, CascadeOptions) or cascade.low is None or cascade.high is None:
        return ScoringMethod(ref, thresholds)
    return ScoringMethod(ref, thresholds, FirstStage(resolve(cascade.model, BLOCKER_ROLE), cascade.low, cascade.high))


def _pinned_blocker(params: MatchingParams) -> str:
    from shopvision import models

    spec = params.blocker or models.serves(BLOCKER_ROLE) or NONE
    if spec == NONE or "text_vector" not in params.blocking.sources or params.pairs_file is not None:
        return NONE
    require_vectors(resolve(spec, BLOCKER_ROLE))
    return spec


def _pinned_cascade(zone: Thresholds, *, given: bool | CascadeOptions) -> bool | CascadeOptions:
    if given is False:
        return False
    if given is True:
        given = CascadeOptions()
    first = resolve(given.model, BLOCKER_ROLE)
    require_vectors(first)
    low, high = given.low, given.high
    if low is None or high is None:
        own = thresholds_of(first)
        low = min(own.different, zone.different) if low is None else low
        high = max(own.same, zone.same) if high is None else high
    return CascadeOptions(first.spec, low, high)


def resolve(spec: str | None, role: str) -> ModelVersionRef:
    """The pair model called ``spec`` (``name:tag``), or the one active for ``role``; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(spec, role)


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
