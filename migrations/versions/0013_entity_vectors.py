"""vectors of brands, categories and attributes' values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "entity_vectors",
        sa.Column(
            "model_version_id",
            sa.BigInteger(),
            nullable=False,
            comment="whose vectors: an image_recall, or an image_ranker with an image tower of its own",
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="brand, category, or the key of an attribute"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("frequency", sa.BigInteger(), nullable=False, comment="items that belong to it"),
        sa.Column("pictures", sa.Integer(), nullable=False, comment="that the mean was taken over"),
        sa.Column(
            "picture_vector",
            sa.LargeBinary(),
            nullable=False,
            comment="little-endian float16: mean of its pictures, zeros where it has none",
        ),
        sa.Column("name_vector", sa.LargeBinary(), nullable=False, comment="little-endian float16"),
        sa.Column("computed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_entity_vectors_model_version_id"),
        ),
        sa.PrimaryKeyConstraint("model_version_id", "kind", "name", name=op.f("pk_entity_vectors")),
    )
    op.create_index(
        "ix_entity_vectors_model_version_id_computed_at", "entity_vectors", ["model_version_id", "computed_at"]
    )


def downgrade() -> None:
    op.drop_table("entity_vectors")
