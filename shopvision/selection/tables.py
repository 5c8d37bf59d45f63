"""Which pictures represent a plan."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import REAL, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.catalogue.tables import ItemImage
from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class PlanRankingState(Base):
    """What one model version last made of one plan. A plan that could not be ranked has one too, without a top picture.

    Ids of jobs and pictures are no foreign keys: they stay as they were when what they name is pruned or deleted.
    """

    __tablename__ = "plan_ranking_states"
    __table_args__ = (Index("ix_plan_ranking_states_model_version_id_ranked_at", "model_version_id", "ranked_at"),)

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.plan_id", ondelete="CASCADE"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    input_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="of all that the ranking depends on; null: try again although nothing changed"
    )
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    ranked_at: Mapped[datetime] = mapped_column(comment="when plan and vectors were read")
    candidates: Mapped[int] = mapped_column(comment="pictures of the plan's items, unreadable ones included")
    found: Mapped[int] = mapped_column(
        server_default=text("0"), comment="of candidates: those of other items, found by the plan's text"
    )
    unreadable: Mapped[int] = mapped_column(comment="of candidates: those that could not be embedded")
    unreadable_pictures: Mapped[list[dict[str, Any]]] = mapped_column(
        comment="[{image_id, code, message}], the first few"
    )
    top_image_id: Mapped[int | None]
    previous_top_image_id: Mapped[int | None] = mapped_column(comment="what led before top_changed_at")
    top_changed_at: Mapped[datetime | None] = mapped_column(comment="equals ranked_at where the newest ranking did it")


class PlanRanking(Base):
    """One picture's place in a plan's newest ranking by one model version: the best ones and a few of the worst."""

    __tablename__ = "plan_rankings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["plan_id", "model_version_id"],
            ["plan_ranking_states.plan_id", "plan_ranking_states.model_version_id"],
            ondelete="CASCADE",
        ),
    )

    plan_id: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey(ItemImage.image_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    rank: Mapped[int] = mapped_column(Integer, comment="1 fits best")
    score: Mapped[float] = mapped_column(
        REAL, comment="of the model, comparable within a plan: compatibility or cosine, -1 to 1, or of clicks"
    )
    recall_score: Mapped[float | None] = mapped_column(
        REAL, comment="cosine of picture and the plan's text; null: not asked"
    )
    source: Mapped[str] = mapped_column(
        server_default=text("'member'"), comment="member: a member item's; library: found by the plan's text"
    )
    job_id: Mapped[uuid.UUID]
