"""plan rankings, and jobs that go first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

# A search index holds the vectors of image encoders. Those of other kinds lie in the same table and concern no index.
# The array is looked up once per statement, not once per row.
INDEXED = (
    "model_version_id = ANY (ARRAY(SELECT model_version_id FROM model_versions WHERE card->>'kind' = 'image_encoder'))"
)

NOTE_CHANGES = """
CREATE OR REPLACE FUNCTION note_index_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO index_changes (model_version_id, image_id)
    SELECT model_version_id, image_id FROM changed WHERE {indexed} ORDER BY model_version_id, image_id
    ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    RETURN NULL;
END $$;

-- EXECUTE plans anew each time: a cached plan remembers how small the transition tables were when it was made.
CREATE OR REPLACE FUNCTION note_vector_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $query$
        INSERT INTO index_changes (model_version_id, image_id)
        SELECT model_version_id, image_id FROM after JOIN before USING (model_version_id, image_id)
        WHERE after.vector IS DISTINCT FROM before.vector AND {indexed}
        ORDER BY 1, 2
        ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision') $query$;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_category_updates() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE moved text[];
BEGIN
    EXECUTE 'SELECT array_agg(item_id) FROM after JOIN before USING (item_id)
             WHERE after.category IS DISTINCT FROM before.category' INTO moved;
    IF moved IS NOT NULL THEN
        INSERT INTO index_changes (model_version_id, image_id)
        SELECT model_version_id, image_id FROM item_images JOIN embeddings USING (image_id)
        WHERE item_id = ANY (moved) AND {indexed}
        ORDER BY 1, 2
        ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    END IF;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    now_false = {"server_default": sa.text("false"), "nullable": False}
    op.add_column("jobs", sa.Column("urgent", sa.Boolean(), comment="goes before jobs that are not", **now_false))
    op.add_column("outbox", sa.Column("urgent", sa.Boolean(), **now_false))
    op.add_column(
        "chunks",
        sa.Column(
            "postponed",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="how often in a row a dependency was away",
        ),
    )
    op.create_table(
        "plan_ranking_states",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "input_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="of all that the ranking depends on; null: try again although nothing changed",
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column(
            "ranked_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="when plan and vectors were read",
        ),
        sa.Column(
            "candidates",
            sa.BigInteger(),
            nullable=False,
            comment="pictures of the plan's items, unreadable ones included",
        ),
        sa.Column(
            "unreadable",
            sa.BigInteger(),
            nullable=False,
            comment="of candidates: those that could not be embedded",
        ),
        sa.Column(
            "unreadable_pictures",
            postgresql.JSONB(),
            nullable=False,
            comment="[{image_id, code, message}], the first few",
        ),
        sa.Column("top_image_id", sa.BigInteger(), nullable=True),
        sa.Column("previous_top_image_id", sa.BigInteger(), nullable=True, comment="what led before top_changed_at"),
        sa.Column(
            "top_changed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="equals ranked_at where the newest ranking did it",
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_plan_ranking_states_model_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plans.plan_id"], name=op.f("fk_plan_ranking_states_plan_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("plan_id", "model_version_id", name=op.f("pk_plan_ranking_states")),
    )
    op.create_index(op.f("ix_plan_ranking_states_job_id"), "plan_ranking_states", ["job_id"], unique=False)
    op.create_table(
        "plan_rankings",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False, comment="1 fits best"),
        sa.Column("score", sa.REAL(), nullable=False, comment="compatibility, -1 to 1: comparable within a plan"),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["item_images.image_id"], name=op.f("fk_plan_rankings_image_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["plan_id", "model_version_id"],
            ["plan_ranking_states.plan_id", "plan_ranking_states.model_version_id"],
            name=op.f("fk_plan_rankings_plan_id_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("plan_id", "model_version_id", "image_id", name=op.f("pk_plan_rankings")),
    )
    op.create_index(op.f("ix_plan_rankings_image_id"), "plan_rankings", ["image_id"], unique=False)
    op.execute(NOTE_CHANGES.format(indexed=INDEXED))


def downgrade() -> None:
    op.execute(NOTE_CHANGES.format(indexed="true"))
    op.execute("DROP TABLE plan_rankings, plan_ranking_states")
    for table, column in (("jobs", "urgent"), ("outbox", "urgent"), ("chunks", "postponed")):
        op.drop_column(table, column)
