"""Writing what became of plans: their rankings, and the state that tells whether they are due again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from shopvision.catalogue.tables import ItemImage, Plan
from shopvision.database import among, copy_rows
from shopvision.selection.store import Scope
from shopvision.selection.tables import PlanRanking, PlanRankingState

MEMBER, LIBRARY = "member", "library"
UNREADABLE_KEPT = 20  # named in the plan's state; a plan of 10,000 may have very many


@dataclass(frozen=True, slots=True)
class RankedPlace:
    """A picture's place in a ranking.

    Attributes:
        rank: from 1.
        score: of the model.
        recall_score: cosine with the plan's text, where the library was asked for it; else it is a member's.
    """

    image_id: int
    rank: int
    score: float
    recall_score: float | None = None

    @property
    def source(self) -> str:
        """Where it came from."""
        return MEMBER if self.recall_score is None else LIBRARY


@dataclass(frozen=True)
class PlanOutcome:
    """What became of one plan: a ranking, or the reason why there is none.

    Attributes:
        input_hash: None where the plan is to be tried again although nothing changes.
        found: of ``candidates``, those of the library.
        ranking: the best ones and the worst ones.
        unreadable: candidates that could not be embedded: {image_id, code, message}.
        failure: (code, message) where ``ranking`` is empty.
    """

    plan_id: str
    read_at: datetime
    input_hash: bytes | None
    candidates: int
    found: int = 0
    ranking: list[RankedPlace] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    failure: tuple[str, str] | None = None


def write_outcomes(connection: Connection, scope: Scope, job_id: uuid.UUID, outcomes: Sequence[PlanOutcome]) -> int:
    """Replace the plans' rankings, in the caller's transaction. Returns how many got another top picture.

    Plans and pictures that were deleted meanwhile are left out, and so are plans of which something newer was read and
    written meanwhile.
    """
    plan_ids, image_ids = _lock(connection, outcomes)
    live = [one for one in outcomes if one.plan_id in plan_ids]
    if not live:
        return 0
    written = _write_states(connection, scope, job_id, live)
    connection.execute(
        delete(PlanRanking).where(
            PlanRanking.model_version_id == scope.model_version_id, among(PlanRanking.plan_id, written)
        )
    )
    rows = (
        (
            one.plan_id, scope.model_version_id, place.image_id, place.rank, place.score, place.recall_score,
            place.source, job_id,
        )
        for one in live
        if one.plan_id in written
        for place in one.ranking
        if place.image_id in image_ids
    )  # fmt: skip
    columns = [
        ("plan_id", "text"), ("model_version_id", "int8"), ("image_id", "int8"), ("rank", "int4"), ("score", "float4"),
        ("recall_score", "float4"), ("source", "text"), ("job_id", "uuid"),
    ]  # fmt: skip
    copy_rows(connection, PlanRanking.__tablename__, columns, rows)
    return sum(written.values())


def _lock(connection: Connection, outcomes: Sequence[PlanOutcome]) -> tuple[set[str], set[int]]:
    """The plans and pictures of ``outcomes`` that exist, and will until the commit; in order, against deadlocks."""
    plan_ids = [one.plan_id for one in outcomes]
    image_ids = {place.image_id for one in outcomes for place in one.ranking}
    plans = select(Plan.plan_id).where(among(Plan.plan_id, plan_ids)).order_by(Plan.plan_id)
    images = select(ItemImage.image_id).where(among(ItemImage.image_id, image_ids)).order_by(ItemImage.image_id)
    return (
        set(connection.scalars(plans.with_for_update(read=True, key_share=True))),
        set(connection.scalars(images.with_for_update(read=True, key_share=True))),
    )


def _write_states(
    connection: Connection, scope: Scope, job_id: uuid.UUID, outcomes: Sequence[PlanOutcome]
) -> dict[str, bool]:
    """Upsert the states; returns plan_id -> whether its top picture changed, for those that were written."""
    statement = insert(PlanRankingState).values(
        [
            {
                "plan_id": one.plan_id,
                "model_version_id": scope.model_version_id,
                "input_hash": one.input_hash,
                "job_id": job_id,
                "ranked_at": one.read_at,
                "candidates": one.candidates,
                "found": one.found,
                "unreadable": len(one.unreadable),
                "unreadable_pictures": one.unreadable[:UNREADABLE_KEPT],
                "top_image_id": one.ranking[0].image_id if one.ranking else None,
            }
            for one in sorted(outcomes, key=lambda one: one.plan_id)
        ]
    )
    old, new = PlanRankingState, statement.excluded
    # A plan that could not be ranked for a while is compared with its last top picture.
    former = func.coalesce(old.top_image_id, old.previous_top_image_id)
    changed = former != new.top_image_id
    replaced = {
        name: new[name]
        for name in ("input_hash", "job_id", "ranked_at", "candidates", "found", "unreadable", "unreadable_pictures")
    }
    rows = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["plan_id", "model_version_id"],
            set_={
                **replaced,
                "top_image_id": new.top_image_id,
                "previous_top_image_id": case(
                    (changed | new.top_image_id.is_(None), former), else_=old.previous_top_image_id
                ),
                "top_changed_at": case((changed, new.ranked_at), else_=old.top_changed_at),
            },
            where=old.ranked_at <= new.ranked_at,
        ).returning(old.plan_id, func.coalesce(old.top_changed_at == old.ranked_at, False))
    )
    return dict(rows.all())
