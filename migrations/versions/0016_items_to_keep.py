"""which item of a group to keep and what the others lend it, exact matches, sizes of pictures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column(
        "item_groups",
        sa.Column(
            "kept_by",
            sa.Text(),
            nullable=True,
            comment="rule that told the item to keep from the next best; id: none did",
        ),
    )
    op.add_column(
        "item_groups",
        sa.Column("kept_digest", sa.LargeBinary(), nullable=True, comment="of what that choice depends on"),
    )
    op.add_column(
        "item_group_members",
        sa.Column(
            "is_kept",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the item to keep of its group",
        ),
    )
    op.add_column(
        "item_group_members",
        sa.Column(
            "lends",
            postgresql.JSONB(),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="what it has and the item to keep lacks: [{field, key, values}]",
        ),
    )
    op.add_column(
        "pair_scores",
        sa.Column(
            "exact",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="what both items have exactly: picture, code; empty: the model alone tells",
        ),
    )
    op.add_column(
        "embeddings",
        sa.Column(
            "pixels",
            sa.Integer(),
            nullable=True,
            comment="width times height of the whole picture; null: not noted",
        ),
    )


def downgrade() -> None:
    op.drop_column("embeddings", "pixels")
    op.drop_column("pair_scores", "exact")
    op.drop_column("item_group_members", "lends")
    op.drop_column("item_group_members", "is_kept")
    op.drop_column("item_groups", "kept_digest")
    op.drop_column("item_groups", "kept_by")
