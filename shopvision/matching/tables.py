"""Which items are the same product: scores, what people decided, and the groups that follow."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.catalogue.tables import Item
from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class ItemVector(Base):
    """What one pair scorer keeps of one item: the vector of its two-tower, or its picture's features."""

    __tablename__ = "item_vectors"
    __table_args__ = (Index("ix_item_vectors_model_version_id_computed_at", "model_version_id", "computed_at"),)

    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True, index=True)
    input_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of what the vector was made from")
    vector: Mapped[bytes] = mapped_column(LargeBinary, comment="little-endian float16")
    computed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MatchingState(Base):
    """As which content an item was last matched against the catalogue under one model version.

    A job notes what it is about to look at as pending, and makes it the content once every pair is scored.
    """

    __tablename__ = "matching_states"

    item_id: Mapped[str] = mapped_column(ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary, comment="null: never matched to the end")
    pending_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    pending_job_id: Mapped[uuid.UUID | None] = mapped_column(index=True)


class BlockingKeys(Base):
    """What an item may share with others, as blocking looks it up: digests of words, codes and attribute values.

    No foreign key: counts have to follow before an item's keys may go. The next run that reads keys sees to both.
    """

    __tablename__ = "blocking_keys"
    __table_args__ = (Index("ix_blocking_keys_keys", "keys", postgresql_using="gin"),)

    item_id: Mapped[str] = mapped_column(primary_key=True)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of the item's record that they were made of")
    scheme: Mapped[int] = mapped_column(Integer, comment="how they were made")
    category: Mapped[str] = mapped_column(comment="path, as blocking compares it")
    keys: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


class BlockingKeyCount(Base):
    """How many items have a key."""

    __tablename__ = "blocking_key_counts"

    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    items: Mapped[int] = mapped_column(Integer)


matching_request_ids = Sequence("matching_request_ids", metadata=Base.metadata)


class MatchingRequest(Base):
    """A row of what a matching job is to do: a pair to score, an item that needs a vector, or a file's broken row.

    Kept until the job comes to its end. Its items may leave the catalogue meanwhile, so they are no foreign keys.
    """

    __tablename__ = "matching_requests"
    __table_args__ = (
        CheckConstraint("(left_item_id IS NULL) = (code IS NOT NULL)", name="item_or_reason"),
        CheckConstraint("(code IS NULL) = (message IS NULL)", name="reason"),
    )

    request_id: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="of the sequence matching_request_ids; chunks name it"
    )
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    left_item_id: Mapped[str | None] = mapped_column(comment="alone: the item needs a vector")
    right_item_id: Mapped[str | None]
    file_row: Mapped[int | None] = mapped_column(comment="of a row that names no pair, code and message say why")
    code: Mapped[str | None]
    message: Mapped[str | None]


class PairScore(Base):
    """How sure one model version is that two items are the same product. Ids are in code point order."""

    __tablename__ = "pair_scores"
    __table_args__ = (
        CheckConstraint('left_item_id COLLATE "C" < right_item_id COLLATE "C"', name="ordered"),
        CheckConstraint("verdict IN ('same', 'different', 'review')", name="verdict"),
        Index("ix_pair_scores_model_version_id_scored_at", "model_version_id", "scored_at"),
    )

    left_item_id: Mapped[str] = mapped_column(ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True)
    right_item_id: Mapped[str] = mapped_column(
        ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    probability: Mapped[float] = mapped_column(REAL, comment="calibrated, of being the same product")
    verdict: Mapped[str] = mapped_column(comment="same, different, review; what people decided stands in pair_reviews")
    exact: Mapped[list[str]] = mapped_column(
        ARRAY(Text),
        server_default=text("'{}'"),
        comment="what both items have exactly: picture, code; empty: the model alone tells",
    )
    input_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of both items: equal means unchanged")
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    scored_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PairReview(Base):
    """What a person decided about two items. It overrides every model's verdict.

    No foreign keys: a decision outlives its items, and holds again as soon as both are in the catalogue again.
    """

    __tablename__ = "pair_reviews"
    __table_args__ = (
        CheckConstraint('left_item_id COLLATE "C" < right_item_id COLLATE "C"', name="ordered"),
        CheckConstraint("verdict IN ('same', 'different')", name="verdict"),
    )

    left_item_id: Mapped[str] = mapped_column(primary_key=True)
    right_item_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    verdict: Mapped[str]
    reviewer: Mapped[str | None]
    note: Mapped[str | None]
    reviewed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemGroup(Base):
    """Items that are one product. A group keeps its id while items join and leave."""

    __tablename__ = "item_groups"

    group_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    model_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id))
    size: Mapped[int] = mapped_column(Integer)
    job_id: Mapped[uuid.UUID] = mapped_column(index=True, comment="that changed it last")
    kept_by: Mapped[str | None] = mapped_column(
        comment="rule that told the item to keep from the next best; id: none did"
    )
    kept_digest: Mapped[bytes | None] = mapped_column(LargeBinary, comment="of what that choice depends on")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemGroupMember(Base):
    """An item is in one group at most; one that has no equal is in none."""

    __tablename__ = "item_group_members"

    item_id: Mapped[str] = mapped_column(ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("item_groups.group_id", ondelete="CASCADE"), index=True)
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())
    is_kept: Mapped[bool] = mapped_column(server_default=text("false"), comment="the item to keep of its group")
    lends: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default=text("'[]'"), comment="what it has and the item to keep lacks: [{field, key, values}]"
    )


class GroupConflict(Base):
    """Two items that a model or a person calls the same, and that grouping kept apart."""

    __tablename__ = "group_conflicts"
    __table_args__ = (CheckConstraint("reason IN ('different', 'size', 'source')", name="reason"),)

    left_item_id: Mapped[str] = mapped_column(ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True)
    right_item_id: Mapped[str] = mapped_column(
        ForeignKey(Item.item_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    reason: Mapped[str] = mapped_column(
        comment="different: members of the two groups differ; source: they have one twice; size: too many"
    )
    probability: Mapped[float] = mapped_column(REAL)
    job_id: Mapped[uuid.UUID]
