"""what vectors were computed in, and how far precisions agree."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # Without a default no row is rewritten: of those that are there nobody knows.
    op.add_column(
        "embeddings",
        sa.Column(
            "precision", sa.Text(), nullable=True, comment="that the network computed in: float32, bfloat16, float16"
        ),
    )
    op.create_table(
        "precision_agreements",
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column(
            "cosine", sa.REAL(), nullable=False, comment="smallest between vectors in this precision and in float32"
        ),
        sa.Column("pictures", sa.BigInteger(), nullable=False, comment="that were compared"),
        sa.Column("measured_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_precision_agreements_model_version_id"),
        ),
        sa.PrimaryKeyConstraint("model_version_id", "precision", name=op.f("pk_precision_agreements")),
    )


def downgrade() -> None:
    op.execute("DROP TABLE precision_agreements; ALTER TABLE embeddings DROP COLUMN precision")
