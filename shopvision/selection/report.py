"""A page for merchandisers: each plan's topic with the pictures that fit it best and worst, and why."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Integer, and_, cast, func, or_, select

from shopvision.catalogue.tables import Item, ItemImage, Plan
from shopvision.database import connect, snapshot
from shopvision.errors import UserError
from shopvision.models.tables import ModelVersion
from shopvision.reports import render_page
from shopvision.selection.plan_methods import CLICK, CLIK, RECALL
from shopvision.selection.results import LIBRARY
from shopvision.selection.tables import PlanRanking, PlanRankingState

BEST, WORST = 6, 3
# What the score of each method says.
SCORES = {CLIK: "fits the topic", RECALL: "shows the words", CLICK: "expected clicks"}


@dataclass(frozen=True)
class RankedPicture:
    """A candidate in its place; ``rank`` and ``score`` are None for a picture that is shown for another reason.

    Attributes:
        reasons: why it is there: its scores, and where it came from.
    """

    image_id: int
    item_id: str
    title: str | None
    uri: str
    rank: int | None = None
    score: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass
class RankedPlan:
    """A plan as the page shows it.

    Attributes:
        topic: row of ``plans``.
        candidates: how many pictures it could choose from, the ``unreadable`` ones included.
        found: of them, how many came from the library.
        unreadable_pictures: {image_id, code, message} of the first few of those.
        is_new_top: whether another picture led until this job.
        former: that picture, where it is still in the catalogue.
    """

    topic: Any
    candidates: int
    unreadable: int
    unreadable_pictures: list[dict[str, Any]]
    is_new_top: bool
    former: RankedPicture | None = None
    best: list[RankedPicture] = field(default_factory=list)
    worst: list[RankedPicture] = field(default_factory=list)
    found: int = 0

    @property
    def heading(self) -> str:
        """Its name."""
        return str(self.topic.name)

    @property
    def details(self) -> list[str]:
        """Date, categories, id."""
        plan = self.topic
        categories = " / ".join(filter(None, [plan.cat1, plan.cat2, plan.cat3, plan.cat4]))
        return [part for part in (plan.date, categories, plan.plan_id) if part]

    @property
    def description(self) -> str | None:
        """What it is about."""
        found: str | None = self.topic.description
        return found

    @property
    def keywords(self) -> list[str]:
        """Its keywords."""
        found: list[str] = self.topic.keywords
        return found

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        plan = self.topic
        words = [plan.plan_id, plan.name, plan.description, plan.date, plan.cat1, plan.cat2, plan.cat3, plan.cat4]
        marks = ["new top picture"] if self.is_new_top else []
        return " ".join(filter(None, [*words, *plan.keywords, *marks])).lower()


def latest_job() -> uuid.UUID:
    """The job that ranked a plan last.

    Raises:
        UserError: none has.
    """
    newest = select(PlanRankingState.job_id).order_by(PlanRankingState.ranked_at.desc()).limit(1)
    with connect() as connection:
        job_id: uuid.UUID | None = connection.scalar(newest)
    if job_id is None:
        raise UserError("No plan has been ranked yet: `shopvision jobs submit rank_plans --wait` does it.")
    return job_id


def plans_of(job_id: uuid.UUID, *, best: int = BEST, worst: int = WORST) -> list[RankedPlan]:
    """The plans that this job ranked and no later one, those with a new top picture first, then by name.

    Raises:
        UserError: there is none.
    """
    state, plan = PlanRankingState.__table__.c, Plan.__table__.c
    # One moment, because a plan may be ranked or deleted between two statements.
    with snapshot() as connection:
        rows = connection.execute(
            select(*plan, *(column for column in state if column.name != "plan_id"))
            .select_from(Plan)
            .join(PlanRankingState)
            .where(state.job_id == job_id, state.top_image_id.is_not(None))
            .order_by((state.top_changed_at == state.ranked_at).is_(True).desc(), plan.name, plan.plan_id)
        ).all()
        if not rows:
            raise UserError(
                f"No plan bears the ranking of job {job_id}: it ranked none, or each was ranked again since. "
                "`shopvision plans report --latest` shows the newest."
            )
        readable = cast(PlanRankingState.candidates - PlanRankingState.unreadable, Integer)
        places = connection.execute(
            select(
                PlanRanking.plan_id,
                *_PICTURE,
                PlanRanking.rank,
                PlanRanking.score,
                PlanRanking.recall_score,
                PlanRanking.source,
                ModelVersion.card["kind"].astext.label("kind"),
            )
            .join(ModelVersion, ModelVersion.model_version_id == PlanRanking.model_version_id)
            .join(ItemImage, ItemImage.image_id == PlanRanking.image_id)
            .join(Item, Item.item_id == ItemImage.item_id)
            .join(
                PlanRankingState,
                and_(
                    PlanRankingState.plan_id == PlanRanking.plan_id,
                    PlanRankingState.model_version_id == PlanRanking.model_version_id,
                ),
            )
            .where(
                PlanRankingState.job_id == job_id, or_(PlanRanking.rank <= best, PlanRanking.rank > readable - worst)
            )
            .order_by(PlanRanking.plan_id, PlanRanking.rank)
        ).all()
        changed = [row.previous_top_image_id for row in rows if row.top_changed_at == row.ranked_at]
        former = {
            row.image_id: RankedPicture(*row)
            for row in connection.execute(
                select(*_PICTURE)
                .join(Item, Item.item_id == ItemImage.item_id)
                .where(ItemImage.image_id == func.any(changed))
            )
        }
    plans = {}
    for row in rows:
        is_new = row.top_changed_at is not None and row.top_changed_at == row.ranked_at
        plans[row.plan_id] = RankedPlan(
            row,
            row.candidates,
            row.unreadable,
            row.unreadable_pictures,
            is_new,
            former.get(row.previous_top_image_id) if is_new else None,
            found=row.found,
        )
    for place in places:
        shown = plans[place.plan_id]
        picture = RankedPicture(
            place.image_id, place.item_id, place.title, place.uri, place.rank, place.score, _reasons(place)
        )
        (shown.best if place.rank <= best else shown.worst).append(picture)
    return list(plans.values())


def _reasons(place: Any) -> tuple[str, ...]:
    """Why a picture stands where it does."""
    reasons = [f"{SCORES.get(place.kind, SCORES[CLIK])} {place.score:.3f}"]
    if place.recall_score is not None and place.kind != RECALL:
        reasons.append(f"{SCORES[RECALL]} {place.recall_score:.3f}")
    return (*reasons, "found in the library" if place.source == LIBRARY else "a member's")


_PICTURE = (ItemImage.image_id, Item.item_id, Item.title, ItemImage.uri)


def write_report(
    output: Path,
    plans: Sequence[RankedPlan],
    *,
    facts: Sequence[tuple[str, str]] = (),
    failures: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        plans: from ``plans_of``.
        facts: (name, value) pairs shown on top.
        failures: ``item_key``, ``code`` and ``message`` of plans that could not be ranked.

    Raises:
        UserError: the file cannot be written.
    """
    shown = {
        picture.image_id: picture.uri
        for plan in plans
        for picture in (*plan.best, *plan.worst, *([plan.former] if plan.former else []))
    }
    render_page(
        "chosen_pictures.html",
        output,
        shown,
        title="Pictures for promotion plans",
        subtitle="Each plan with the pictures that fit its topic best, and those that fit it worst, with their scores.",
        facts=[
            ("plans shown", f"{len(plans):,}"),
            ("with a new top picture", f"{sum(plan.is_new_top for plan in plans):,}"),
            *facts,
        ],
        rows=plans,
        best="Fits best",
        worst="Fits worst",
        failed=("Plans that could not be ranked", "Plan"),
        failures=failures,
    )
