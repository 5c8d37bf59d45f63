"""what items may share, kept from one matching to the next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "blocking_keys",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column(
            "content_hash", sa.LargeBinary(), nullable=False, comment="of the item's record that they were made of"
        ),
        sa.Column("scheme", sa.Integer(), nullable=False, comment="how they were made"),
        sa.Column("category", sa.Text(), nullable=False, comment="path, as blocking compares it"),
        sa.Column("keys", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_blocking_keys")),
    )
    op.create_index("ix_blocking_keys_keys", "blocking_keys", ["keys"], unique=False, postgresql_using="gin")
    op.create_table(
        "blocking_key_counts",
        sa.Column("key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_blocking_key_counts")),
    )


def downgrade() -> None:
    op.execute("DROP TABLE blocking_keys, blocking_key_counts")
