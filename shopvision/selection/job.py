"""One chunk of plans ranked by a CLIK model: what ``tasks.rank_plans`` asks for.

Pictures that the model has not seen yet are embedded first and their vectors committed batch by batch, so what was
done stays done whatever becomes of the chunk. Where no picture is new, only the plans' texts go through the model.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.selection import store
from shopvision.selection.results import PlanOutcome, write_outcomes
from shopvision.selection.store import PlanInput, Scope
from shopvision.selection.topic import Topic

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from shopvision.images.outcome import Failed
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.models import ModelVersionRef
    from shopvision.selection.clik.predict import PlanRanker

ROLE = "plan_ranker"
KIND = "plan_ranker"
BATCHES_AHEAD = 4  # between looks at what others have done
PASSING = ("unavailable", "timeout")  # failures that may be over tomorrow although nothing changes here


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

    return models.resolve(spec, ROLE, KIND)


@lru_cache(maxsize=2)
def _ranker(spec: str) -> PlanRanker:
    """Loaded once per process and kept: loading costs seconds, a chunk not much more."""
    from shopvision import models
    from shopvision.selection.clik.predict import PlanRanker

    return PlanRanker(models.local_copy(models.find(spec)))


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
    from shopvision.images import PictureDoor
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.settings import get_settings

    report = RankReport(scope, job_id)
    groups = store.in_groups(scope, plan_ids)
    with PictureDoor(get_settings()) as door:
        ranker = _ranker(ref.spec)
        vectors = _Vectors(EmbeddingPipeline(ranker.image_encoder, door), report)
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


class _Vectors:
    """Sees to it that every candidate has a vector of what it looks like now."""

    def __init__(self, pipeline: EmbeddingPipeline, report: RankReport) -> None:
        self.pipeline = pipeline
        self.failed: dict[int, Failed] = {}
        self._report = report
        self._looked_at: set[int] = set()

    def bring_up_to_date(self, plan_ids: Sequence[str], should_stop: Callable[[], bool]) -> bool:
        """Embed what is new or changed among the plans' candidates; False where it was asked to stop before the end."""
        for only_one_of_equal in (True, False):
            stale = self._stale(plan_ids)
            # Of pictures with the same bytes one is embedded, and the next round shares its vector.
            chosen = {(sha256 if only_one_of_equal and sha256 else image_id): image_id for image_id, sha256 in stale}
            if not chosen:
                break
            if not self._embed(list(chosen.values()), should_stop):
                return False
        return True

    def _stale(self, plan_ids: Sequence[str]) -> list[tuple[int, bytes | None]]:
        """Candidates to embed, after those were served for whose bytes there is a vector."""
        scope = self._report.scope
        stale = store.stale_pictures(scope, plan_ids)
        known = [image_id for image_id, sha256 in stale.items() if sha256 is not None]
        if known and (shared := store.share_vectors(scope, known)):
            self._report.counters["shared"] += shared
            stale = store.stale_pictures(scope, plan_ids)
        return [pair for pair in stale.items() if pair[0] not in self._looked_at]

    def _embed(self, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> bool:
        from shopvision.embeddings.store import select_tasks
        from shopvision.embeddings.store import write_outcomes as write_vectors
        from shopvision.images.outcome import Embedded, Failed

        scope = self._report.scope
        self._looked_at.update(image_ids)
        # Other processes rank plans with the same pictures at the same time. Each begins at another one, and leaves out
        # what has been done meanwhile.
        start = random.randrange(len(image_ids))  # noqa: S311 - no secret
        turned = [*image_ids[start:], *image_ids[:start]]
        step = BATCHES_AHEAD * self.pipeline.batch_size
        for first in range(0, len(turned), step):
            open_ids = store.still_stale(scope, turned[first : first + step])
            with connect() as connection:
                tasks = select_tasks(connection, scope.model_version_id, open_ids)
            for batch in self.pipeline.stream(tasks):
                if batch:
                    with connect() as connection:
                        write_vectors(connection, scope.model_version_id, batch)
                self._report.counters["embedded"] += sum(isinstance(outcome, Embedded) for outcome in batch)
                self.failed |= {outcome.image_id: outcome for outcome in batch if isinstance(outcome, Failed)}
                if should_stop():
                    return False
        return True


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
