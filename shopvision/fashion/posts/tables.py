"""Social posts, what models made of them, and what people decided about the pairs."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import REAL, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class Post(Base):
    """A photo that somebody posted, and the products that are tagged in it."""

    __tablename__ = "posts"

    post_id: Mapped[str] = mapped_column(primary_key=True)
    photo_uri: Mapped[str]
    products: Mapped[list[dict[str, Any]]] = mapped_column(comment="product_id, thumbnail (an address or null), title")
    content_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of photo, products and thumbnails")
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LabelledPost(Base):
    """What a detector and a thumbnail classifier made of a post: pairs, or the reason why it gives none."""

    __tablename__ = "labelled_posts"
    __table_args__ = (
        CheckConstraint("state IN ('kept', 'rejected', 'failed')", name="state"),
        CheckConstraint("(state = 'kept') = (reason IS NULL)", name="reason"),
        Index("ix_labelled_posts_hash_bands", "hash_bands", postgresql_using="gin"),
        Index("ix_labelled_posts_detector_version_id_labelled_at", "detector_version_id", "labelled_at"),
        Index("ix_labelled_posts_classifier_version_id_labelled_at", "classifier_version_id", "labelled_at"),
    )

    detector_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    classifier_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    post_id: Mapped[str] = mapped_column(ForeignKey(Post.post_id, ondelete="CASCADE"), primary_key=True, index=True)
    state: Mapped[str] = mapped_column(comment="kept: it gives a pair; rejected by a rule; failed: the photo is no use")
    reason: Mapped[str | None] = mapped_column(comment="the rule, or the reason code of the failure")
    same_as: Mapped[str | None] = mapped_column(comment="the kept post that has nearly the same photo")
    photo_hash: Mapped[int | None] = mapped_column(comment="64 bits; nearly the same photos differ in few")
    hash_bands: Mapped[list[int] | None] = mapped_column(
        ARRAY(Integer), comment="of kept posts: by which they are found"
    )
    photo_size: Mapped[list[int] | None] = mapped_column(ARRAY(Integer), comment="width, height of the upright photo")
    garments: Mapped[int] = mapped_column(Integer, comment="of indexed classes, in the photo")
    pairs: Mapped[int] = mapped_column(Integer, comment="that the rules kept")
    input_hash: Mapped[bytes | None] = mapped_column(LargeBinary, comment="of post and rules; null: to be tried again")
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)
    labelled_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TrainingPair(Base):
    """A garment in a post's photo and the thumbnail of the same product, or why a tagged product gives no pair."""

    __tablename__ = "training_pairs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["detector_version_id", "classifier_version_id", "post_id"],
            [LabelledPost.detector_version_id, LabelledPost.classifier_version_id, LabelledPost.post_id],
            name="fk_training_pairs_labelled_post",
            ondelete="CASCADE",
        ),
        CheckConstraint("state IN ('kept', 'rejected')", name="state"),
        CheckConstraint("(state = 'kept') = (reason IS NULL)", name="reason"),
        CheckConstraint("state = 'rejected' OR anchor_box IS NOT NULL AND positive_uri IS NOT NULL", name="whole"),
        CheckConstraint("cardinality(anchor_box) = 4", name="anchor_box"),
    )

    detector_version_id: Mapped[int] = mapped_column(primary_key=True)
    classifier_version_id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    product_id: Mapped[str] = mapped_column(primary_key=True)
    anchor_uri: Mapped[str] = mapped_column(comment="the photo")
    anchor_box: Mapped[list[float] | None] = mapped_column(
        ARRAY(REAL), comment="left, top, right, bottom; pixels of the upright photo at full scale"
    )
    positive_uri: Mapped[str | None] = mapped_column(comment="the thumbnail")
    category: Mapped[str | None] = mapped_column(comment="class of the thumbnail, and of the garment")
    garment_score: Mapped[float | None] = mapped_column(REAL, comment="of the detector")
    class_probability: Mapped[float | None] = mapped_column(REAL, comment="of the thumbnail classifier")
    state: Mapped[str] = mapped_column(comment="kept, rejected")
    reason: Mapped[str | None] = mapped_column(comment="the rule, the thumbnail's reason code, or person")
    job_id: Mapped[uuid.UUID] = mapped_column(index=True)


class TrainingPairReview(Base):
    """What a person decided about a pair. It overrides every model, and outlives post, pair and models."""

    __tablename__ = "training_pair_reviews"
    __table_args__ = (CheckConstraint("verdict IN ('right', 'wrong')", name="verdict"),)

    post_id: Mapped[str] = mapped_column(primary_key=True)
    product_id: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str] = mapped_column(comment="right, wrong")
    reviewer: Mapped[str | None]
    note: Mapped[str | None]
    reviewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
