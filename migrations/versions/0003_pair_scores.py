"""what pair scorers found: scores, groups, and what people decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "group_conflicts",
        sa.Column("left_item_id", sa.Text(), nullable=False),
        sa.Column("right_item_id", sa.Text(), nullable=False),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=False,
            comment="different: members of the two groups differ; size: too many items",
        ),
        sa.Column("probability", sa.REAL(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("reason IN ('different', 'size')", name=op.f("ck_group_conflicts_reason")),
        sa.ForeignKeyConstraint(
            ["left_item_id"], ["items.item_id"], name=op.f("fk_group_conflicts_left_item_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["right_item_id"], ["items.item_id"], name=op.f("fk_group_conflicts_right_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("left_item_id", "right_item_id", name=op.f("pk_group_conflicts")),
    )
    op.create_index(op.f("ix_group_conflicts_right_item_id"), "group_conflicts", ["right_item_id"], unique=False)
    op.create_table(
        "item_groups",
        sa.Column("group_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False, comment="that changed it last"),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_item_groups_model_version_id")
        ),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_item_groups")),
    )
    op.create_index(op.f("ix_item_groups_job_id"), "item_groups", ["job_id"], unique=False)
    op.create_table(
        "item_vectors",
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False, comment="of what the vector was made from"),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="little-endian float16"),
        sa.Column("computed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.item_id"], name=op.f("fk_item_vectors_item_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_item_vectors_model_version_id")
        ),
        sa.PrimaryKeyConstraint("model_version_id", "item_id", name=op.f("pk_item_vectors")),
    )
    op.create_index(op.f("ix_item_vectors_item_id"), "item_vectors", ["item_id"], unique=False)
    op.create_table(
        "matching_states",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=True, comment="null: never matched to the end"),
        sa.Column("pending_hash", sa.LargeBinary(), nullable=True),
        sa.Column("pending_job_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.item_id"], name=op.f("fk_matching_states_item_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_matching_states_model_version_id")
        ),
        sa.PrimaryKeyConstraint("item_id", "model_version_id", name=op.f("pk_matching_states")),
    )
    op.create_index(op.f("ix_matching_states_pending_job_id"), "matching_states", ["pending_job_id"], unique=False)
    op.create_table(
        "pair_reviews",
        sa.Column("left_item_id", sa.Text(), nullable=False),
        sa.Column("right_item_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("reviewed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("verdict IN ('same', 'different')", name=op.f("ck_pair_reviews_verdict")),
        sa.CheckConstraint(
            'left_item_id COLLATE "C" < right_item_id COLLATE "C"', name=op.f("ck_pair_reviews_ordered")
        ),
        sa.ForeignKeyConstraint(
            ["left_item_id"], ["items.item_id"], name=op.f("fk_pair_reviews_left_item_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["right_item_id"], ["items.item_id"], name=op.f("fk_pair_reviews_right_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("left_item_id", "right_item_id", name=op.f("pk_pair_reviews")),
    )
    op.create_index(op.f("ix_pair_reviews_right_item_id"), "pair_reviews", ["right_item_id"], unique=False)
    op.create_table(
        "pair_scores",
        sa.Column("left_item_id", sa.Text(), nullable=False),
        sa.Column("right_item_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("probability", sa.REAL(), nullable=False, comment="calibrated, of being the same product"),
        sa.Column(
            "verdict",
            sa.Text(),
            nullable=False,
            comment="same, different, review; what people decided stands in pair_reviews",
        ),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False, comment="of both items: equal means unchanged"),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("scored_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("verdict IN ('same', 'different', 'review')", name=op.f("ck_pair_scores_verdict")),
        sa.CheckConstraint('left_item_id COLLATE "C" < right_item_id COLLATE "C"', name=op.f("ck_pair_scores_ordered")),
        sa.ForeignKeyConstraint(
            ["left_item_id"], ["items.item_id"], name=op.f("fk_pair_scores_left_item_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_pair_scores_model_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["right_item_id"], ["items.item_id"], name=op.f("fk_pair_scores_right_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("left_item_id", "right_item_id", "model_version_id", name=op.f("pk_pair_scores")),
    )
    op.create_index(op.f("ix_pair_scores_job_id"), "pair_scores", ["job_id"], unique=False)
    op.create_index(op.f("ix_pair_scores_right_item_id"), "pair_scores", ["right_item_id"], unique=False)
    op.create_table(
        "item_group_members",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("joined_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["item_groups.group_id"], name=op.f("fk_item_group_members_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.item_id"], name=op.f("fk_item_group_members_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_item_group_members")),
    )
    op.create_index(op.f("ix_item_group_members_group_id"), "item_group_members", ["group_id"], unique=False)


def downgrade() -> None:
    op.execute("DROP TABLE item_group_members, item_groups, group_conflicts")
    op.execute("DROP TABLE pair_scores, pair_reviews, matching_states, item_vectors")
