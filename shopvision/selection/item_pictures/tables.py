"""Which pictures represent an item."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, REAL, BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.catalogue.tables import ItemImage
from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class ImageSelectionState(Base):
    """What one pair of models last made of one item. An item without a selection has one too, without a top picture.

    Ids of jobs and pictures are no foreign keys: they stay as they were when what they name is pruned or deleted.
    """

    __tablename__ = "image_selection_states"
    __table_args__ = (
        Index("ix_image_selection_states_model_version_id_selected_at", "model_version_id", "selected_at"),
        Index("ix_image_selection_states_recall_version_id_selected_at", "recall_version_id", "selected_at"),
    )

    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey(ModelVersion.model_version_id),
        primary_key=True,
        comment="what ordered the pictures: an image_ranker, or the recall model itself",
    )
    recall_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    input_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="of all that the selection depends on; null: try again although nothing changed"
    )
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    selected_at: Mapped[datetime] = mapped_column(comment="when item and vectors were read")
    recall_text: Mapped[str] = mapped_column(comment="what pictures were compared with")
    candidates: Mapped[int] = mapped_column(comment="pictures that were looked at, unreadable ones included")
    found: Mapped[int] = mapped_column(comment="of candidates: those of other items, found in the whole library")
    repeated: Mapped[int] = mapped_column(comment="of candidates: those that are nearly the same as a better one")
    unreadable: Mapped[int] = mapped_column(comment="of candidates: those that could not be embedded")
    unreadable_pictures: Mapped[list[dict[str, Any]]] = mapped_column(
        comment="[{image_id, code, message}], the first few"
    )
    top_image_id: Mapped[int | None]
    previous_top_image_id: Mapped[int | None] = mapped_column(comment="what led before top_changed_at")
    top_changed_at: Mapped[datetime | None] = mapped_column(comment="equals selected_at where the newest one did it")


class ImageSelection(Base):
    """One picture's place in an item's newest selection by one pair of models."""

    __tablename__ = "image_selections"
    __table_args__ = (
        ForeignKeyConstraint(
            ["item_id", "model_version_id", "recall_version_id"],
            [
                "image_selection_states.item_id",
                "image_selection_states.model_version_id",
                "image_selection_states.recall_version_id",
            ],
            ondelete="CASCADE",
        ),
    )

    item_id: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(primary_key=True)
    recall_version_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey(ItemImage.image_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    rank: Mapped[int] = mapped_column(Integer, comment="1 represents the item best")
    recall_score: Mapped[float] = mapped_column(REAL, comment="cosine of picture and text, -1 to 1")
    click_score: Mapped[float | None] = mapped_column(REAL, comment="differences are logits; null: no ranker served")
    source: Mapped[str] = mapped_column(comment="own: the item's; category, library: another item's")
    stands_for: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), server_default=text("'{}'"), comment="candidates that are nearly the same picture"
    )
    job_id: Mapped[uuid.UUID]
