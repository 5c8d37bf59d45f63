"""Plans' pictures ranked by a model: what ``tasks.rank_plans`` asks for.

A plan chooses among its members' pictures, and among those that the library is found to hold for its words. Pictures
that the model has not seen yet are embedded first and their vectors committed batch by batch, so what was done stays
done whatever becomes of the chunk. Where no picture is new, only the plans' texts go through the model.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shopvision.catalogue.known_ids import require_plans
from shopvision.errors import UserError
from shopvision.selection import plan_library, store
from shopvision.selection.candidate_vectors import CandidateVectors
from shopvision.selection.outcomes import plan_failure, plan_outcome
from shopvision.selection.plan_methods import KINDS, PlanMethod, plan_method, vectors_of
from shopvision.selection.results import PlanOutcome, write_outcomes
from shopvision.selection.store import PlanInput, Scope
from shopvision.selection.topic import Topic

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shopvision.images.outcome import Failed
    from shopvision.models import ModelVersionRef
    from shopvision.selection.library import FoundPicture, Library

ROLE = "plan_ranker"
COUNTERS = ("candidates", "found", "unreadable", "embedded", "shared", "top_changed")

WITHOUT_MODEL = {
    "plans": 0,
    "reason": "No model serves the role plan_ranker, so no plan was ranked: "
    "`shopvision models activate plan_ranker NAME:TAG` sets one.",
}


class RankingParams(Protocol):
    """A ranking job's parameters; ``tasks.rank_plans.RankParams`` says what they mean."""

    scope: Literal["changed", "all"]
    plan_ids: list[str] | None
    top_k: int
    bottom_k: int
    min_candidates: int
    pictures: Literal["leading", "all"]
    recall: bool
    recall_model: str | None
    most_found: int
    least_score: float | None
    undated: str | None
    model: str | None


@dataclass
class RankReport:
    """What one chunk came to. ``write`` stores the rankings; the caller decides in which transaction.

    Attributes:
        remaining: plans not ranked because the chunk was asked to stop.
        counters: candidates, among them those found in the library and unreadable ones, embedded (pictures that went
            through the model), shared (that got the vector of another picture with the same bytes), where the scope
            dates them, undated (plans without a date), and, once written, top_changed.
        model_seconds: time that pictures and texts spent in the model.
        model_items: how many of both there were.
    """

    scope: Scope
    job_id: uuid.UUID
    outcomes: list[PlanOutcome] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    model_seconds: float = 0.0
    model_items: int = 0

    @property
    def ranked(self) -> int:
        """Plans that have a ranking."""
        return sum(one.failure is None for one in self.outcomes)

    @property
    def failed(self) -> list[tuple[str, str, str]]:
        """(plan_id, code, message) of those that have none."""
        return [(one.plan_id, *one.failure) for one in self.outcomes if one.failure is not None]

    def write(self, connection: Connection) -> None:
        """Replace the plans' rankings, and count those that got another top picture."""
        self.counters["top_changed"] = write_outcomes(connection, self.scope, self.job_id, self.outcomes)


def resolve_ranker(spec: str | None) -> ModelVersionRef:
    """The model called ``spec`` (``name:tag``) that ranks plans' pictures, or the one active for the role.

    Raises:
        UserError: there is no such version, or it is of another kind.
        JobError: no model serves the role.
    """
    from shopvision import models

    if spec is None:
        return models.active(ROLE)
    ref = models.find(spec)
    if ref.card.kind not in KINDS:
        raise UserError(
            f"{spec} is of the kind {ref.card.kind}, not {', '.join(KINDS[:-1])} or {KINDS[-1]}: `shopvision models "
            "list` shows what there is."
        )
    return ref


def method_of(params: RankingParams) -> str:
    """The kind of the pinned model: how pictures were ranked."""
    return resolve_ranker(params.model).card.kind


def pin(params: RankingParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job has nothing to do while no model serves the role; whoever asks for more gets an error.
    """
    from shopvision import models

    routine = params.model is None and params.plan_ids is None and params.scope == "changed"
    if routine and models.serves(ROLE) is None:
        return {}
    recall = plan_library.recall_of(params.recall_model, params.least_score, insists=params.recall)
    day = Topic("plans without a date").dated(params.undated).date
    return {"model": resolve_ranker(params.model).spec, "recall_model": recall, "undated": day or None}


def plans_in_scope(params: RankingParams) -> Iterable[str]:
    """Ids of the plans to rank, by pinned parameters.

    Raises:
        UserError: a plan that is named does not exist.
    """
    if params.model is None:
        return ()
    if params.plan_ids is not None:
        return require_plans(params.plan_ids)
    scope = _scope(params, resolve_ranker(params.model), _library(params))
    return store.plans_to_rank(scope, only_changed=params.scope == "changed")


def work(
    params: RankingParams, plan_ids: Sequence[str], *, job_id: uuid.UUID, should_stop: Callable[[], bool]
) -> RankReport:
    """Rank one chunk's plans, by pinned parameters; see ``rank_plans``."""
    ref, library = resolve_ranker(params.model), _library(params)
    scope = _scope(params, ref, library)
    return rank_plans(ref, plan_ids, scope, library, job_id=job_id, should_stop=should_stop)


def _library(params: RankingParams) -> Library | None:
    return plan_library.open_library(params.recall_model, params.least_score, params.most_found, insists=params.recall)


def _scope(params: RankingParams, ref: ModelVersionRef, library: Library | None) -> Scope:
    return Scope(
        ref.model_version_id, params.pictures == "all", params.top_k, params.bottom_k, params.min_candidates,
        vectors_version_id=vectors_of(ref).model_version_id, library="" if library is None else f" {library.mark}",
        every_plan=params.recall, undated=params.undated or "",
    )  # fmt: skip


def rank_plans(
    ref: ModelVersionRef,
    plan_ids: Sequence[str],
    scope: Scope,
    library: Library | None = None,
    *,
    job_id: uuid.UUID,
    should_stop: Callable[[], bool],
) -> RankReport:
    """Rank some plans. No database connection is held while a model computes.

    Args:
        ref: the model version.
        plan_ids: those that left the catalogue since are dropped without a word.
        scope: what is ranked, and how much of it is kept.
        library: where pictures are looked for; None where a plan has its members' alone.
        job_id: noted with each ranking.
        should_stop: asked after every batch of pictures, and after every group of plans.
    """
    from shopvision.images import PictureDoor
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.settings import get_settings

    report = RankReport(scope, job_id)
    if scope.undated:
        report.counters["undated"] = 0
    groups = store.in_groups(scope, plan_ids)
    method = plan_method(ref)
    with PictureDoor(get_settings()) as door:
        vectors = CandidateVectors(EmbeddingPipeline(method.encoder, door), scope.vectors, report.counters)
        for done, group in enumerate(groups):
            members = store.member_pictures(scope, group)
            found = plan_library.find_pictures(library, group, members, every_plan=scope.every_plan)
            candidates = {one for ids in members.values() for one in ids}
            candidates |= {one.image_id for pictures in found.values() for one in pictures}
            if not vectors.bring_up_to_date(sorted(candidates), should_stop):
                report.remaining += [plan_id for later in groups[done:] for plan_id in later]
                break
            _rank_group(method, group, found, vectors.failed, report)
            if done + 1 < len(groups) and should_stop():
                report.remaining += [plan_id for later in groups[done + 1 :] for plan_id in later]
                break
        report.model_seconds += vectors.pipeline.model_seconds
    report.model_items += report.counters["embedded"]
    return report


def _rank_group(
    method: PlanMethod,
    plan_ids: Sequence[str],
    found: dict[str, list[FoundPicture]],
    failed: dict[int, Failed],
    report: RankReport,
) -> None:
    ready: list[tuple[PlanInput, Topic]] = []
    for plan in store.read_inputs(report.scope, plan_ids, found):
        if any(image_id not in failed for image_id in plan.without_vector):
            report.remaining.append(plan.plan_id)  # a picture was added this moment
            continue
        try:
            topic = Topic.from_mapping(plan.topic)
            ready.append((plan, topic.dated(report.scope.undated)))
            if report.scope.undated and not topic.date:
                report.counters["undated"] += 1
        except UserError as error:
            report.outcomes.append(plan_failure(plan, "bad_topic", str(error)))
    started = time.perf_counter()
    scorers = method.scorers([topic for _, topic in ready])
    report.model_seconds += time.perf_counter() - started
    report.model_items += len(ready)
    for (plan, _), scorer in zip(ready, scorers, strict=True):
        if isinstance(scorer, UserError):
            report.outcomes.append(plan_failure(plan, "bad_topic", str(scorer)))
            continue
        report.outcomes.append(plan_outcome(plan, scorer, failed, report.scope))
        report.counters["candidates"] += plan.candidates
        report.counters["found"] += len(plan.found)
        report.counters["unreadable"] += len(report.outcomes[-1].unreadable)
