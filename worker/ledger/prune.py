"""Jobs that ended long ago, with all that belongs to them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select

from shopvision.database import connect
from shopvision.database.batches import delete_in_batches
from shopvision.matching import requests
from shopvision.settings import get_settings
from worker.ledger.tables import Chunk, Job, JobState, OutboxMessage

BATCH_ROWS = 10_000
BATCH_JOBS = 100  # with their chunks and failures


def prune() -> dict[str, int]:
    """Delete finished jobs, chunks of succeeded ones, sent messages, and rows staged for jobs that cannot go on."""
    settings = get_settings()
    old_jobs = (
        select(Job.job_id)
        .where(Job.state != JobState.RUNNING, Job.finished_at < func.now() - timedelta(days=settings.keep_jobs_days))
        .limit(BATCH_JOBS)
    )
    done_chunks = (
        select(Chunk.chunk_id)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(
            Job.state == JobState.SUCCEEDED, Job.finished_at < func.now() - timedelta(days=settings.keep_chunks_days)
        )
        .limit(BATCH_ROWS)
    )
    sent = (
        select(OutboxMessage.message_id)
        .where(OutboxMessage.sent_at < func.now() - timedelta(days=settings.keep_outbox_days))
        .limit(BATCH_ROWS)
    )
    return {
        "jobs": delete_in_batches(delete(Job).where(Job.job_id.in_(old_jobs))),
        "chunks": delete_in_batches(delete(Chunk).where(Chunk.chunk_id.in_(done_chunks))),
        "outbox": delete_in_batches(delete(OutboxMessage).where(OutboxMessage.message_id.in_(sent))),
        "matching_requests": _prune_requests(),
    }


def _prune_requests() -> int:
    """Rows of jobs that can neither go on nor be resumed; one that came to its end has dropped its own."""
    with_rows = requests.jobs_with_rows()  # before the jobs are looked at: a job is there before it has rows
    with connect() as connection:
        open_jobs = set(connection.scalars(select(Job.job_id).where(Job.state != JobState.SUCCEEDED)))
    return sum(requests.forget(job_id) for job_id in with_rows if job_id not in open_jobs)
