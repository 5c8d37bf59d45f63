"""social posts, and the training pairs that models find in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

MOMENT = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "posts",
        sa.Column("post_id", sa.Text(), nullable=False),
        sa.Column("photo_uri", sa.Text(), nullable=False),
        sa.Column(
            "products",
            postgresql.JSONB(),
            nullable=False,
            comment="product_id, thumbnail (an address or null), title",
        ),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="of photo, products and thumbnails"),
        sa.Column("received_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("post_id", name=op.f("pk_posts")),
    )
    op.create_table(
        "training_pair_reviews",
        sa.Column("post_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False, comment="right, wrong"),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("reviewed_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("verdict IN ('right', 'wrong')", name=op.f("ck_training_pair_reviews_verdict")),
        sa.PrimaryKeyConstraint("post_id", "product_id", name=op.f("pk_training_pair_reviews")),
    )
    op.create_table(
        "labelled_posts",
        sa.Column("detector_version_id", sa.BigInteger(), nullable=False),
        sa.Column("classifier_version_id", sa.BigInteger(), nullable=False),
        sa.Column("post_id", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="kept: it gives a pair; rejected by a rule; failed: the photo is no use",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="the rule, or the reason code of the failure"),
        sa.Column("same_as", sa.Text(), nullable=True, comment="the kept post that has nearly the same photo"),
        sa.Column(
            "photo_hash", sa.BigInteger(), nullable=True, comment="64 bits; nearly the same photos differ in few"
        ),
        sa.Column(
            "hash_bands",
            postgresql.ARRAY(sa.Integer()),
            nullable=True,
            comment="of kept posts: by which they are found",
        ),
        sa.Column(
            "photo_size", postgresql.ARRAY(sa.Integer()), nullable=True, comment="width, height of the upright photo"
        ),
        sa.Column("garments", sa.Integer(), nullable=False, comment="of indexed classes, in the photo"),
        sa.Column("pairs", sa.Integer(), nullable=False, comment="that the rules kept"),
        sa.Column("input_hash", sa.LargeBinary(), nullable=True, comment="of post and rules; null: to be tried again"),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("labelled_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('kept', 'rejected', 'failed')", name=op.f("ck_labelled_posts_state")),
        sa.CheckConstraint("(state = 'kept') = (reason IS NULL)", name=op.f("ck_labelled_posts_reason")),
        sa.ForeignKeyConstraint(
            ["detector_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_labelled_posts_detector_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["classifier_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_labelled_posts_classifier_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["post_id"], ["posts.post_id"], name=op.f("fk_labelled_posts_post_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "detector_version_id", "classifier_version_id", "post_id", name=op.f("pk_labelled_posts")
        ),
    )
    op.create_index("ix_labelled_posts_hash_bands", "labelled_posts", ["hash_bands"], postgresql_using="gin")
    for model in ("detector_version_id", "classifier_version_id"):
        op.create_index(f"ix_labelled_posts_{model}_labelled_at", "labelled_posts", [model, "labelled_at"])
    op.create_index(op.f("ix_labelled_posts_post_id"), "labelled_posts", ["post_id"])
    op.create_index(op.f("ix_labelled_posts_job_id"), "labelled_posts", ["job_id"])
    op.create_table(
        "training_pairs",
        sa.Column("detector_version_id", sa.BigInteger(), nullable=False),
        sa.Column("classifier_version_id", sa.BigInteger(), nullable=False),
        sa.Column("post_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("anchor_uri", sa.Text(), nullable=False, comment="the photo"),
        sa.Column(
            "anchor_box",
            postgresql.ARRAY(sa.REAL()),
            nullable=True,
            comment="left, top, right, bottom; pixels of the upright photo at full scale",
        ),
        sa.Column("positive_uri", sa.Text(), nullable=True, comment="the thumbnail"),
        sa.Column("category", sa.Text(), nullable=True, comment="class of the thumbnail, and of the garment"),
        sa.Column("garment_score", sa.REAL(), nullable=True, comment="of the detector"),
        sa.Column("class_probability", sa.REAL(), nullable=True, comment="of the thumbnail classifier"),
        sa.Column("state", sa.Text(), nullable=False, comment="kept, rejected"),
        sa.Column("reason", sa.Text(), nullable=True, comment="the rule, the thumbnail's reason code, or person"),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("state IN ('kept', 'rejected')", name=op.f("ck_training_pairs_state")),
        sa.CheckConstraint("(state = 'kept') = (reason IS NULL)", name=op.f("ck_training_pairs_reason")),
        sa.CheckConstraint(
            "state = 'rejected' OR anchor_box IS NOT NULL AND positive_uri IS NOT NULL",
            name=op.f("ck_training_pairs_whole"),
        ),
        sa.CheckConstraint("cardinality(anchor_box) = 4", name=op.f("ck_training_pairs_anchor_box")),
        sa.ForeignKeyConstraint(
            ["detector_version_id", "classifier_version_id", "post_id"],
            [
                "labelled_posts.detector_version_id",
                "labelled_posts.classifier_version_id",
                "labelled_posts.post_id",
            ],
            name="fk_training_pairs_labelled_post",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "detector_version_id", "classifier_version_id", "post_id", "product_id", name=op.f("pk_training_pairs")
        ),
    )
    op.create_index(op.f("ix_training_pairs_post_id"), "training_pairs", ["post_id"])
    op.create_index(op.f("ix_training_pairs_job_id"), "training_pairs", ["job_id"])


def downgrade() -> None:
    op.execute("DROP TABLE training_pairs, labelled_posts, training_pair_reviews, posts")
