"""items say where they come from, and groups may hold one item of each source at most."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

TABLE, NAME = "group_conflicts", "ck_group_conflicts_reason"
BEFORE = "different: members of the two groups differ; size: too many items"
COMMENT = "different: members of the two groups differ; source: they have one twice; size: too many"


def set_reasons(reasons: str, comment: str, existing: str) -> None:
    op.drop_constraint(op.f(NAME), TABLE)
    op.create_check_constraint(op.f(NAME), TABLE, f"reason IN ({reasons})")
    op.alter_column(TABLE, "reason", comment=comment, existing_comment=existing)


def upgrade() -> None:
    comment = "where it comes from: a seller, a supplier, a feed"
    op.add_column("items", sa.Column("source", sa.Text(), nullable=True, comment=comment))
    set_reasons("'different', 'size', 'source'", COMMENT, BEFORE)


def downgrade() -> None:
    op.execute("DELETE FROM group_conflicts WHERE reason = 'source'")
    set_reasons("'different', 'size'", BEFORE, COMMENT)
    op.drop_column("items", "source")
