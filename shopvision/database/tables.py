"""The tables of the shop's knowledge. The job ledger's tables stand in ``worker.ledger.tables``."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base of every table, with predictable constraint names for migrations."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way of declaring it
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
        int: BigInteger,
    }


class Item(Base):
    """A sellable item of the catalogue."""

    __tablename__ = "items"
    # Room for the next versions of rows on their own pages: new prices then leave many index entries alone (HOT).
    __table_args__ = {"postgresql_with": {"fillfactor": 80}}  # noqa: RUF012 - as SQLAlchemy reads it

    item_id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    brand: Mapped[str | None]
    category: Mapped[str | None] = mapped_column(index=True, comment="path, parts joined by /")
    attributes: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default=text("'[]'"), comment="[{key, value}], keys may repeat"
    )
    sku_attributes: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    price: Mapped[Decimal | None] = mapped_column(Numeric)
    currency: Mapped[str | None]
    description: Mapped[str | None]
    extra: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'"), comment="keys of the source we have no column for"
    )
    source_updated_at: Mapped[datetime | None]
    content_hash: Mapped[bytes] = mapped_column(
        LargeBinary, comment="of the whole record, pictures included: equal means unchanged"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemImage(Base):
    """One picture of an item. Its identity is (item, address), so that reordering pictures embeds nothing anew."""

    __tablename__ = "item_images"
    __table_args__ = (UniqueConstraint("item_id", "uri"),)

    image_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(SmallInteger, comment="0 leads")
    uri: Mapped[str]
    view: Mapped[str | None]


class Plan(Base):
    """A promotion plan."""

    __tablename__ = "plans"

    plan_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str | None]
    date: Mapped[str | None]
    cat1: Mapped[str | None]
    cat2: Mapped[str | None]
    cat3: Mapped[str | None]
    cat4: Mapped[str | None]
    keywords: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    extra: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PlanItem(Base):
    """Membership of an item in a plan. The item may arrive in the catalogue after the plan, so it is no foreign key."""

    __tablename__ = "plan_items"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.plan_id", ondelete="CASCADE"), primary_key=True)
    item_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    position: Mapped[int]


class ModelVersion(Base):
    """An immutable folder ``models/<name>/<tag>/`` in object storage, and its card."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("name", "tag"),)

    model_version_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    tag: Mapped[str]
    card: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelRole(Base):
    """Which model version serves a role now, and which one did before (for rollback)."""

    __tablename__ = "model_roles"

    role: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.model_version_id"))
    activated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Embedding(Base):
    """What one model version saw in one picture.

    Statement triggers note every insert, update and delete in ``index_changes``, where the model is an image encoder.
    The vectors of other kinds (a plan ranker's image tower) are in no index.
    """

    __tablename__ = "embeddings"
    __table_args__ = (Index("ix_embeddings_model_version_id_image_sha256", "model_version_id", "image_sha256"),)

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey("item_images.image_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    image_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    source_fingerprint: Mapped[str] = mapped_column(
        comment="cheap mark of the source (size and mtime, ETag): equal means unchanged"
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary, comment="little-endian float16, unit length")
    embedded_at: Mapped[datetime] = mapped_column(server_default=func.now())


index_change_revision = Sequence("index_change_revision", metadata=Base.metadata)


class IndexChange(Base):
    """A picture whose vector or category changed since the newest index generation of its model version.

    Publishing takes rows up to the revisions it read and deletes exactly those, so a change made meanwhile stays.
    """

    __tablename__ = "index_changes"

    model_version_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(server_default=index_change_revision.next_value())


class PlanRankingState(Base):
    """What one model version last made of one plan. A plan that could not be ranked has one too, without a top picture.

    Ids of jobs and pictures are no foreign keys: they stay as they were when what they name is pruned or deleted.
    """

    __tablename__ = "plan_ranking_states"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.plan_id", ondelete="CASCADE"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"), primary_key=True)
    input_hash: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="of all that the ranking depends on; null: try again although nothing changed"
    )
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    ranked_at: Mapped[datetime] = mapped_column(comment="when plan and vectors were read")
    candidates: Mapped[int] = mapped_column(comment="pictures of the plan's items, unreadable ones included")
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
        ForeignKey("item_images.image_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    rank: Mapped[int] = mapped_column(Integer, comment="1 fits best")
    score: Mapped[float] = mapped_column(REAL, comment="compatibility, -1 to 1: comparable within a plan")
    job_id: Mapped[uuid.UUID]


class ItemVector(Base):
    """What one pair scorer keeps of one item: the vector of its two-tower, or its picture's features."""

    __tablename__ = "item_vectors"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True, index=True)
    input_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of what the vector was made from")
    vector: Mapped[bytes] = mapped_column(LargeBinary, comment="little-endian float16")
    computed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MatchingState(Base):
    """As which content an item was last matched against the catalogue under one model version.

    A job notes what it is about to look at as pending, and makes it the content once every pair is scored.
    """

    __tablename__ = "matching_states"

    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"), primary_key=True)
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary, comment="null: never matched to the end")
    pending_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    pending_job_id: Mapped[uuid.UUID | None] = mapped_column(index=True)


class PairScore(Base):
    """How sure one model version is that two items are the same product. Ids are in code point order."""

    __tablename__ = "pair_scores"
    __table_args__ = (
        CheckConstraint('left_item_id COLLATE "C" < right_item_id COLLATE "C"', name="ordered"),
        CheckConstraint("verdict IN ('same', 'different', 'review')", name="verdict"),
    )

    left_item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    right_item_id: Mapped[str] = mapped_column(
        ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"), primary_key=True)
    probability: Mapped[float] = mapped_column(REAL, comment="calibrated, of being the same product")
    verdict: Mapped[str] = mapped_column(comment="same, different, review; what people decided stands in pair_reviews")
    input_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of both items: equal means unchanged")
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    scored_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PairReview(Base):
    """What a person decided about two items. It overrides every model's verdict."""

    __tablename__ = "pair_reviews"
    __table_args__ = (
        CheckConstraint('left_item_id COLLATE "C" < right_item_id COLLATE "C"', name="ordered"),
        CheckConstraint("verdict IN ('same', 'different')", name="verdict"),
    )

    left_item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    right_item_id: Mapped[str] = mapped_column(
        ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    verdict: Mapped[str]
    reviewer: Mapped[str | None]
    note: Mapped[str | None]
    reviewed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemGroup(Base):
    """Items that are one product. A group keeps its id while items join and leave."""

    __tablename__ = "item_groups"

    group_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"))
    size: Mapped[int] = mapped_column(Integer)
    job_id: Mapped[uuid.UUID] = mapped_column(index=True, comment="that changed it last")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemGroupMember(Base):
    """An item is in one group at most; one that has no equal is in none."""

    __tablename__ = "item_group_members"

    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("item_groups.group_id", ondelete="CASCADE"), index=True)
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GroupConflict(Base):
    """Two items that a model or a person calls the same, and that grouping kept apart."""

    __tablename__ = "group_conflicts"
    __table_args__ = (CheckConstraint("reason IN ('different', 'size')", name="reason"),)

    left_item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True)
    right_item_id: Mapped[str] = mapped_column(
        ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    reason: Mapped[str] = mapped_column(comment="different: members of the two groups differ; size: too many items")
    probability: Mapped[float] = mapped_column(REAL)
    job_id: Mapped[uuid.UUID]


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
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"))
    state: Mapped[str] = mapped_column(comment="published, refused, collected")
    is_current: Mapped[bool] = mapped_column(server_default=text("false"))
    manifest: Mapped[dict[str, Any]]
    bytes_uploaded: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
