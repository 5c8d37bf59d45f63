"""What keeps a job going when something was lost: leases that ran out, messages that vanished, stops half done."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import func, literal_column, select

from shopvision.database import connect
from shopvision.settings import get_settings
from worker.ledger.deaths import record_death
from worker.ledger.lifecycle import end_if_cancelled
from worker.ledger.outbox import enqueue_chunks
from worker.ledger.tables import Chunk, ChunkState, Job, JobState

log = structlog.get_logger(__name__)


def reap() -> None:
    """Look once for everything that is overdue. Several reapers may run at once."""
    _expire_leases()
    _send_again()
    _end_cancelled_jobs()


def _expire_leases() -> None:
    with connect() as connection:
        expired = connection.execute(
            select(Chunk.chunk_id, Chunk.attempt, Chunk.worker).where(
                Chunk.state == ChunkState.LEASED, Chunk.lease_until < func.now()
            )
        ).all()
    for chunk in expired:
        log.warning("lease_expired", chunk_id=chunk.chunk_id, attempt=chunk.attempt, worker=chunk.worker)
        record_death(chunk.chunk_id, f"worker {chunk.worker} fell silent", attempt=chunk.attempt)


def _send_again() -> None:
    """A message is only a hint: a ready chunk that nobody claims gets another one, a duplicate does no harm."""
    with connect() as connection:
        overdue = (
            (Chunk.state == literal_column("'ready'"))  # no parameter: a prepared plan can then use the partial index
            & (Chunk.sent_at < func.now() - timedelta(seconds=get_settings().resend_after_seconds))
            & (Job.state == JobState.RUNNING)
        )
        enqueue_chunks(connection, overdue)


def _end_cancelled_jobs() -> None:
    with connect() as connection:
        stopping = connection.scalars(
            select(Job.job_id)
            .where(Job.state == JobState.RUNNING, Job.cancel_requested_at.is_not(None))
            .with_for_update(key_share=True, skip_locked=True)
        ).all()
        for job_id in stopping:
            end_if_cancelled(connection, job_id)
