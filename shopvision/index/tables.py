"""What an index is made of: the stored vectors, notes of what changed, and the generations.

The vectors stand here and not in ``embeddings``, which makes them: an index reads them, and is below that room.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    REAL,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.catalogue.tables import ItemImage
from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class Embedding(Base):
    """What one model version saw in one picture, or in a region of it.

    Statement triggers note every insert, update and delete in ``index_changes``, where the model is an image encoder,
    composed or not. The vectors of other kinds (a plan ranker's image tower) are in no index.
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        Index("ix_embeddings_model_version_id_image_sha256", "model_version_id", "image_sha256"),
        Index("ix_embeddings_model_version_id_embedded_at", "model_version_id", "embedded_at"),
    )

    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey(ItemImage.image_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    region: Mapped[int] = mapped_column(
        SmallInteger,
        primary_key=True,
        server_default=text("0"),
        comment="0: the whole picture; else a row of picture_regions",
    )
    image_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    source_fingerprint: Mapped[str] = mapped_column(
        comment="cheap mark of the source (size and mtime, ETag): equal means unchanged"
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary, comment="little-endian float16, unit length")
    embedded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    precision: Mapped[str | None] = mapped_column(comment="that the network computed in: float32, bfloat16, float16")
    pixels: Mapped[int | None] = mapped_column(
        Integer, comment="width times height of the whole picture; null: not noted"
    )


class PrecisionAgreement(Base):
    """How far vectors of one model version agree that were computed in different precisions, as it was measured."""

    __tablename__ = "precision_agreements"

    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    precision: Mapped[str] = mapped_column(primary_key=True)
    cosine: Mapped[float] = mapped_column(REAL, comment="smallest between vectors in this precision and in float32")
    pictures: Mapped[int] = mapped_column(comment="that were compared")
    measured_at: Mapped[datetime] = mapped_column(server_default=func.now())


index_change_revision = Sequence("index_change_revision", metadata=Base.metadata)


class IndexChange(Base):
    """A picture of which a vector or the category changed since the newest index generation of its model version.

    Publishing takes rows up to the revisions it read and deletes exactly those, so a change made meanwhile stays.
    """

    __tablename__ = "index_changes"

    model_version_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(server_default=index_change_revision.next_value())


class IndexGeneration(Base):
    """One published (or refused) generation of an index; the files lie in object storage under ``path``."""

    __tablename__ = "index_generations"
    __table_args__ = (
        UniqueConstraint("name", "path"),
        Index("uq_index_generations_current", "name", unique=True, postgresql_where=text("is_current")),
    )

    generation_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    path: Mapped[str] = mapped_column(comment="indexes/<name>/generations/<model_tag>/<utc>-<short id>")
    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id))
    state: Mapped[str] = mapped_column(comment="published, refused, collected")
    is_current: Mapped[bool] = mapped_column(server_default=text("false"))
    manifest: Mapped[dict[str, Any]]
    bytes_uploaded: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
