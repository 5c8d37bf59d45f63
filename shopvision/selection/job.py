"""Plans ranked by a CLIK model: what ``tasks.rank_plans`` asks for.

Pictures that the model has not seen yet are embedded first and their vectors committed batch by batch, so what was
done stays done whatever becomes of the chunk. Where no picture is new, only the plans' texts go through the model.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from shopvision.catalogue.known_ids import require_plans
from shopvision.errors import UserError
from shopvision.selection import store
from shopvision.selection.candidate_vectors import CandidateVectors
from shopvision.selection.results import PlanOutcome, write_outcomes
from shopvision.selection.store import PlanInput, Scope
from shopvision.selection.topic import Topic

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from shopvision.images.outcome import Failed
    from shopvision.models import ModelVersionRef
    from shopvision.selection.clik.predict import PlanRanker

ROLE = "plan_ranker"
PASSING = ("unavailable", "timeout")  # failures that may be over tomorrow although nothing changes here


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
    model: str | None


@dataclass
class RankReport:
    """What one chunk came to. ``write`` stores the rankings; the caller decides in which transaction.

    Attributes:
        remaining: plans not ranked because the chunk was asked to stop.
        counters: candidates, unreadable ones among them, embedded (pictures that went through the model), shared (that
            got the vector of another picture with the same bytes), and, once written, top_changed.
        model_seconds: time that pictures and texts spent in the model.
        model_items: how many of both there were.
    """

    scope: Scope
    job_id: uuid.UUID
    outcomes: list[PlanOutcome] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(
        default_factory=lambda: {"candidates": 0, "unreadable": 0, "embedded": 0, "shared": 0, "top_changed": 0}
    )
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
    """The ranker called ``spec`` (``name:tag``), or the one active for the role; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(spec, ROLE)


def pin(params: RankingParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job has nothing to do while no model serves the role; whoever asks for more gets an error.
    """
    from shopvision import models

    routine = params.model is None and params.plan_ids is None and params.scope == "changed"
    if routine and models.serves(ROLE) is None:
        return {}
    return {"model": resolve_ranker(params.model).spec}


def plans_in_scope(params: RankingParams) -> Iterable[str]:
    """Ids of the plans to rank, by pinned parameters.

    Raises:
        UserError: a plan that is named does not exist.
    """
    if params.model is None:
        return ()
    if params.plan_ids is not None:
        return require_plans(params.plan_ids)
    return store.plans_to_rank(_scope(params, resolve_ranker(params.model)), only_changed=params.scope == "changed")


def work(
    params: RankingParams, plan_ids: Sequence[str], *, job_id: uuid.UUID, should_stop: Callable[[], bool]
) -> RankReport:
    """Rank one chunk's plans, by pinned parameters; see ``rank_plans``."""
    ref = resolve_ranker(params.model)
    return rank_plans(ref, plan_ids, _scope(params, ref), job_id=job_id, should_stop=should_stop)


def _scope(params: RankingParams, ref: ModelVersionRef) -> Scope:
    everything = params.pictures == "all"
    return Scope(ref.model_version_id, everything, params.top_k, params.bottom_k, params.min_candidates)


def rank_plans(
    ref: ModelVersionRef, plan_ids: Sequence[str], scope: Scope, *, job_id: uuid.UUID, should_stop: Callable[[], bool]
) -> RankReport:
    """Rank some plans. No database connection is held while a model computes.

    Args:
        ref: the model version.
        plan_ids: those that left the catalogue since are dropped without a word.
        scope: what is ranked, and how much of it is kept.
        job_id: noted with each ranking.
        should_stop: asked after every batch of pictures, and after every group of plans.
    """
    from shopvision import models
    from shopvision.images import PictureDoor
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.settings import get_settings

    report = RankReport(scope, job_id)
    groups = store.in_groups(scope, plan_ids)
    ranker: PlanRanker = models.load(ref.spec)
    with PictureDoor(get_settings()) as door:
        vectors = CandidateVectors(EmbeddingPipeline(ranker.image_encoder, door), report)
        for done, group in enumerate(groups):
            if not vectors.bring_up_to_date(group, should_stop):
                report.remaining += [plan_id for later in groups[done:] for plan_id in later]
                break
            _rank_group(ranker, group, vectors.failed, report)
            if done + 1 < len(groups) and should_stop():
                report.remaining += [plan_id for later in groups[done + 1 :] for plan_id in later]
                break
        report.model_seconds += vectors.pipeline.model_seconds
    report.model_items += report.counters["embedded"]
    return report


def _rank_group(ranker: PlanRanker, plan_ids: Sequence[str], failed: dict[int, Failed], report: RankReport) -> None:
    ready: list[tuple[PlanInput, Topic]] = []
    for plan in store.read_inputs(report.scope, plan_ids):
        if any(image_id not in failed for image_id in plan.without_vector):
            report.remaining.append(plan.plan_id)  # a picture was added this moment
            continue
        try:
            ready.append((plan, Topic.from_mapping(plan.topic)))
        except UserError as error:
            report.outcomes.append(_failure(plan, "bad_topic", str(error)))
    started = time.perf_counter()
    queries = _queries(ranker, [topic for _, topic in ready])
    report.model_seconds += time.perf_counter() - started
    report.model_items += len(ready)
    for (plan, _), query in zip(ready, queries, strict=True):
        if isinstance(query, UserError):
            report.outcomes.append(_failure(plan, "bad_topic", str(query)))
            continue
        report.outcomes.append(_outcome(plan, query, failed, report.scope))
        report.counters["candidates"] += plan.candidates
        report.counters["unreadable"] += len(report.outcomes[-1].unreadable)


def _queries(ranker: PlanRanker, topics: Sequence[Topic]) -> Sequence[NDArray[np.float32] | UserError]:
    """The query vector of each topic, or why the model takes no such topic; one by one only where one is refused."""
    if not topics:
        return []
    try:
        return list(ranker.query_vectors(topics))
    except UserError as error:
        return [error] if len(topics) == 1 else [query for topic in topics for query in _queries(ranker, [topic])]


def _outcome(plan: PlanInput, query: NDArray[np.float32], failed: dict[int, Failed], scope: Scope) -> PlanOutcome:
    """One plan's ranking, or why it has none.

    Args:
        plan: as it was read.
        query: (h,) float32 of unit length.
        failed: pictures that cannot be read now; what an old vector says of them does not count.
        scope: how many places are kept, and how many candidates it takes.
    """
    readable = ~np.isin(plan.image_ids, list(failed))
    image_ids = plan.image_ids[readable]
    unreadable = sorted([*plan.image_ids[~readable].tolist(), *plan.without_vector])
    reasons = [failed[image_id] for image_id in unreadable]
    if plan.candidates == 0:
        return _failure(plan, "no_candidates", "None of its items has a picture in the catalogue: import them.")
    if len(image_ids) == 0:
        first = f"{len(reasons)} in all, the first: {reasons[0].code}: {reasons[0].message}"
        return _failure(plan, "no_readable_candidates", f"None of its pictures can be read ({first})", reasons)
    if len(image_ids) < scope.min_candidates:
        return _failure(
            plan,
            "too_few_candidates",
            f"It has {len(image_ids)} readable pictures, fewer than min_candidates={scope.min_candidates}.",
            reasons,
        )
    scores = plan.vectors[readable].astype(np.float32) @ query
    ranking = ranking_of(image_ids, scores, scope.top_k, scope.bottom_k)
    return PlanOutcome(
        plan.plan_id, plan.read_at, _kept_hash(plan, reasons), plan.candidates, ranking, _as_json(reasons)
    )


def _failure(plan: PlanInput, code: str, message: str, unreadable: Sequence[Failed] = ()) -> PlanOutcome:
    return PlanOutcome(
        plan.plan_id,
        plan.read_at,
        _kept_hash(plan, unreadable),
        plan.candidates,
        unreadable=_as_json(unreadable),
        failure=(code, message),
    )


def _kept_hash(plan: PlanInput, unreadable: Sequence[Failed]) -> bytes | None:
    return None if any(one.code in PASSING for one in unreadable) else plan.input_hash


def _as_json(unreadable: Sequence[Failed]) -> list[dict[str, object]]:
    return [{"image_id": one.image_id, "code": one.code, "message": one.message} for one in unreadable]


def ranking_of(
    image_ids: NDArray[np.int64], scores: NDArray[np.float32], top_k: int, bottom_k: int
) -> list[tuple[int, int, float]]:
    """(image_id, rank from 1, score) of the ``top_k`` best and the ``bottom_k`` worst; equal scores by id."""
    order = np.lexsort((image_ids, -scores))
    places = [*range(min(top_k, len(order))), *range(max(top_k, len(order) - bottom_k), len(order))]
    return [(int(image_ids[order[place]]), place + 1, float(scores[order[place]])) for place in places]
