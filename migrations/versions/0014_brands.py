"""brands are found without regard to capitals."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # One that was left half built by an attempt before is of no use.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_items_lower_brand")
        op.execute("CREATE INDEX CONCURRENTLY ix_items_lower_brand ON items (lower(brand))")


def downgrade() -> None:
    op.execute("DROP INDEX ix_items_lower_brand")
