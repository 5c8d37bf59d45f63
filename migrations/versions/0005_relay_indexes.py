"""what the relay and the reaper look for stands in indexes; no chunk waits in a job that has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_index("ix_outbox_unsent", "outbox")
    op.create_index(
        "ix_outbox_unsent",
        "outbox",
        ["urgent", "queue", "not_before", "message_id"],
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.create_index(
        "ix_chunks_sent", "chunks", ["sent_at"], postgresql_where=sa.text("state = 'ready' AND sent_at IS NOT NULL")
    )
    op.execute(
        "UPDATE chunks SET state = 'cancelled', finished_at = now() FROM jobs"
        " WHERE chunks.job_id = jobs.job_id AND chunks.state = 'ready' AND jobs.state <> 'running'"
    )


def downgrade() -> None:
    op.drop_index("ix_chunks_sent", "chunks")
    op.drop_index("ix_outbox_unsent", "outbox")
    op.create_index("ix_outbox_unsent", "outbox", ["queue", "message_id"], postgresql_where=sa.text("sent_at IS NULL"))
