"""What entities look like to a model version, kept so that a chunk of work computes none of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class EntityVector(Base):
    """A brand, a category or a value of an attribute, as one model version sees it."""

    __tablename__ = "entity_vectors"
    __table_args__ = (Index("ix_entity_vectors_model_version_id_computed_at", "model_version_id", "computed_at"),)

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey(ModelVersion.model_version_id),
        primary_key=True,
        comment="whose vectors: an image_recall, or an image_ranker with an image tower of its own",
    )
    kind: Mapped[str] = mapped_column(primary_key=True, comment="brand, category, or the key of an attribute")
    name: Mapped[str] = mapped_column(primary_key=True)
    frequency: Mapped[int] = mapped_column(comment="items that belong to it")
    pictures: Mapped[int] = mapped_column(Integer, comment="that the mean was taken over")
    picture_vector: Mapped[bytes] = mapped_column(
        LargeBinary, comment="little-endian float16: mean of its pictures, zeros where it has none"
    )
    name_vector: Mapped[bytes] = mapped_column(LargeBinary, comment="little-endian float16")
    computed_at: Mapped[datetime] = mapped_column(server_default=func.now())
