"""what matching jobs are to do: rows that their chunks name by number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("CREATE SEQUENCE matching_request_ids")
    op.create_table(
        "matching_requests",
        sa.Column(
            "request_id",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="of the sequence matching_request_ids; chunks name it",
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("left_item_id", sa.Text(), nullable=True, comment="alone: the item needs a vector"),
        sa.Column("right_item_id", sa.Text(), nullable=True),
        sa.Column(
            "file_row", sa.BigInteger(), nullable=True, comment="of a row that names no pair, code and message say why"
        ),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(left_item_id IS NULL) = (code IS NOT NULL)", name=op.f("ck_matching_requests_item_or_reason")
        ),
        sa.CheckConstraint("(code IS NULL) = (message IS NULL)", name=op.f("ck_matching_requests_reason")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_matching_requests")),
    )
    op.create_index(op.f("ix_matching_requests_job_id"), "matching_requests", ["job_id"], unique=False)


def downgrade() -> None:
    op.execute("DROP TABLE matching_requests")
    op.execute("DROP SEQUENCE matching_request_ids")
