"""pictures that represent items, where plans' pictures come from, and an index of what texts are compared with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

MOMENT = postgresql.TIMESTAMP(timezone=True)
FUNCTIONS = ("note_index_changes", "note_vector_updates", "note_category_updates")
INDEXED_BEFORE, INDEXED = "'image_encoder', 'composed_encoder'", "'image_encoder', 'composed_encoder', 'image_recall'"
SCORE_BEFORE = "compatibility, -1 to 1: comparable within a plan"
SCORE = "of the model, comparable within a plan: compatibility or cosine, -1 to 1, or of clicks"


def note_changes_of(kinds: str, before: str) -> None:
    """Let the functions behind the triggers of ``embeddings`` note changes for models of other kinds."""
    for name in FUNCTIONS:
        definition = op.get_bind().scalar(sa.text(f"SELECT pg_get_functiondef('{name}'::regproc)"))
        op.get_bind().exec_driver_sql(str(definition).replace(before, kinds))


def upgrade() -> None:
    op.create_table(
        "image_selection_states",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column(
            "model_version_id",
            sa.BigInteger(),
            nullable=False,
            comment="what ordered the pictures: an image_ranker, or the recall model itself",
        ),
        sa.Column("recall_version_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "input_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="of all that the selection depends on; null: try again although nothing changed",
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("selected_at", MOMENT, nullable=False, comment="when item and vectors were read"),
        sa.Column("recall_text", sa.Text(), nullable=False, comment="what pictures were compared with"),
        sa.Column(
            "candidates",
            sa.BigInteger(),
            nullable=False,
            comment="pictures that were looked at, unreadable ones included",
        ),
        sa.Column(
            "found",
            sa.BigInteger(),
            nullable=False,
            comment="of candidates: those of other items, found in the whole library",
        ),
        sa.Column(
            "repeated",
            sa.BigInteger(),
            nullable=False,
            comment="of candidates: those that are nearly the same as a better one",
        ),
        sa.Column(
            "unreadable", sa.BigInteger(), nullable=False, comment="of candidates: those that could not be embedded"
        ),
        sa.Column(
            "unreadable_pictures",
            postgresql.JSONB(),
            nullable=False,
            comment="[{image_id, code, message}], the first few",
        ),
        sa.Column("top_image_id", sa.BigInteger(), nullable=True),
        sa.Column("previous_top_image_id", sa.BigInteger(), nullable=True, comment="what led before top_changed_at"),
        sa.Column("top_changed_at", MOMENT, nullable=True, comment="equals selected_at where the newest one did it"),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.item_id"], name=op.f("fk_image_selection_states_item_id"), ondelete="CASCADE"
        ),
        *(
            sa.ForeignKeyConstraint(
                [column], ["model_versions.model_version_id"], name=op.f(f"fk_image_selection_states_{column}")
            )
            for column in ("model_version_id", "recall_version_id")
        ),
        sa.PrimaryKeyConstraint(
            "item_id", "model_version_id", "recall_version_id", name=op.f("pk_image_selection_states")
        ),
    )
    op.create_index(op.f("ix_image_selection_states_job_id"), "image_selection_states", ["job_id"])
    for column in ("model_version_id", "recall_version_id"):
        op.create_index(
            f"ix_image_selection_states_{column}_selected_at", "image_selection_states", [column, "selected_at"]
        )
    op.create_table(
        "image_selections",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("recall_version_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False, comment="1 represents the item best"),
        sa.Column("recall_score", sa.REAL(), nullable=False, comment="cosine of picture and text, -1 to 1"),
        sa.Column("click_score", sa.REAL(), nullable=True, comment="differences are logits; null: no ranker served"),
        sa.Column("source", sa.Text(), nullable=False, comment="own: the item's; category, library: another item's"),
        sa.Column(
            "stands_for",
            postgresql.ARRAY(sa.BigInteger()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="candidates that are nearly the same picture",
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["item_images.image_id"], name=op.f("fk_image_selections_image_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["item_id", "model_version_id", "recall_version_id"],
            [
                "image_selection_states.item_id",
                "image_selection_states.model_version_id",
                "image_selection_states.recall_version_id",
            ],
            name=op.f("fk_image_selections_item_id_model_version_id_recall_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "item_id", "model_version_id", "recall_version_id", "image_id", name=op.f("pk_image_selections")
        ),
    )
    op.create_index(op.f("ix_image_selections_image_id"), "image_selections", ["image_id"])
    op.add_column(
        "plan_ranking_states",
        sa.Column(
            "found",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of candidates: those of other items, found by the plan's text",
        ),
    )
    op.add_column(
        "plan_rankings",
        sa.Column(
            "recall_score", sa.REAL(), nullable=True, comment="cosine of picture and the plan's text; null: not asked"
        ),
    )
    op.add_column(
        "plan_rankings",
        sa.Column(
            "source",
            sa.Text(),
            server_default=sa.text("'member'"),
            nullable=False,
            comment="member: a member item's; library: found by the plan's text",
        ),
    )
    op.alter_column("plan_rankings", "score", comment=SCORE, existing_comment=SCORE_BEFORE)
    note_changes_of(INDEXED, INDEXED_BEFORE)


def downgrade() -> None:
    note_changes_of(INDEXED_BEFORE, INDEXED)
    op.alter_column("plan_rankings", "score", comment=SCORE_BEFORE, existing_comment=SCORE)
    op.drop_column("plan_rankings", "source")
    op.drop_column("plan_rankings", "recall_score")
    op.drop_column("plan_ranking_states", "found")
    op.execute("DROP TABLE image_selections, image_selection_states")
