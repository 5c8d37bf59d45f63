"""What people and services ask of jobs: submit, cancel, resume, retry what failed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shopvision.database import connect
from shopvision.errors import UserError
from worker.input_checks import require_key
from worker.kinds import Phase, get_kind, parse_params
from worker.ledger.lifecycle import SPLIT_QUEUE, advance, end_if_cancelled, put_aside
from worker.ledger.outbox import enqueue_chunks
from worker.ledger.tables import Chunk, ChunkState, ItemFailure, Job, JobState


def submit(
    session: Session | Connection,
    kind: str,
    params: dict[str, Any] | None = None,
    *,
    key: str | None = None,
    source: str = "library",
    retry_of: uuid.UUID | None = None,
) -> uuid.UUID:
    """Enqueue a job in the caller's transaction: it exists, and its first message leaves, if and when that commits.

    Args:
        session: a SQLAlchemy session or connection on the shop's database.
        kind: name of a job kind.
        params: its parameters, as JSON values.
        key: idempotency key. A second submission of the same kind and key returns the first one's job.
        source: who asks, for the operator's eyes.
        retry_of: a job whose failed items are this job's items.

    Raises:
        UserError: unknown kind, wrong parameters, or a key that is none.
    """
    job_kind = get_kind(kind)
    if key is not None:
        require_key(key)
    require_key(source, "source")
    checked = parse_params(job_kind, params or {})
    job_id: uuid.UUID | None = session.scalar(
        upsert(Job)
        .values(
            kind=kind,
            params=checked.model_dump(mode="json", exclude_defaults=True),
            idempotency_key=key,
            source=source,
            urgent=job_kind.urgent(checked),
            retry_of=retry_of,
        )
        .on_conflict_do_nothing(index_elements=["kind", "idempotency_key"])
        .returning(Job.job_id)
    )
    if job_id is None:
        existing: uuid.UUID | None = session.scalar(
            select(Job.job_id).where(Job.kind == kind, Job.idempotency_key == key)
        )
        if existing is None:  # the other submission was rolled back or pruned between the two statements
            raise UserError(f"The job with key {key!r} vanished while it was looked up: submit again.")
        return existing
    session.execute(insert(Chunk).values(job_id=job_id, phase=Phase.SPLIT, queue=SPLIT_QUEUE))
    enqueue_chunks(session, Chunk.job_id == job_id)
    return job_id


def cancel(job_id: uuid.UUID) -> JobState:
    """Ask a job to stop: waiting chunks at once, running ones at their next batch border.

    Raises:
        UserError: no such job, or it has already ended.
    """
    with connect() as connection:
        job = _lock_job(connection, job_id)
        if job.state != JobState.RUNNING:
            raise UserError(f"Job {job_id} has already {job.state}.")
        connection.execute(
            update(Job)
            .where(Job.job_id == job_id)
            .values(cancel_requested_at=func.coalesce(Job.cancel_requested_at, func.now()))
        )
        put_aside(connection, Chunk.job_id == job_id)
        return end_if_cancelled(connection, job_id)


def resume(job_id: uuid.UUID) -> None:
    """Take up a cancelled or failed job where it stopped.

    Raises:
        UserError: no such job, or it neither failed nor was cancelled.
    """
    with connect() as connection:
        job = _lock_job(connection, job_id)
        if job.state not in {JobState.CANCELLED, JobState.FAILED}:
            raise UserError(f"Job {job_id} is {job.state}: only a cancelled or failed job can be resumed.")
        connection.execute(
            update(Job)
            .where(Job.job_id == job_id)
            .values(state=JobState.RUNNING, cancel_requested_at=None, finished_at=None, error=None)
        )
        stopped = (Chunk.job_id == job_id) & Chunk.state.in_((ChunkState.CANCELLED, ChunkState.FAILED))
        connection.execute(
            update(Chunk)
            .where(stopped)
            .values(
                state=ChunkState.READY, deaths=0, postponed=0, finished_at=None, not_before=func.now(), sent_at=None
            )
        )
        enqueue_chunks(connection, (Chunk.job_id == job_id) & (Chunk.state == ChunkState.READY))
        if job.chunks_left == 0:
            advance(connection, job_id)


def retry_failed(job_id: uuid.UUID) -> uuid.UUID:
    """Submit a job of the same kind and parameters for exactly the items that failed.

    Asked again it returns the same job, unless the first one has been resumed and has ended anew meanwhile.

    Raises:
        UserError: no such job, it is still running, or none of its items failed.
    """
    with connect() as connection:
        job = _lock_job(connection, job_id)
        if job.state == JobState.RUNNING:
            raise UserError(f"Job {job_id} is still running: wait for its end, or cancel it.")
        if not connection.scalar(select(select(ItemFailure).where(ItemFailure.job_id == job_id).exists())):
            raise UserError(f"Job {job_id} has no failed items: there is nothing to retry.")
        key = f"retry of {job_id} as it ended {job.finished_at.astimezone(UTC).isoformat()}"
        return submit(connection, job.kind, job.params, key=key, source="retry", retry_of=job_id)


def failed_keys(job_id: uuid.UUID) -> Iterator[str]:
    """Keys of the items that failed in a job, streamed."""
    with connect() as connection:
        yield from connection.execution_options(yield_per=5000).scalars(
            select(ItemFailure.item_key).where(ItemFailure.job_id == job_id).order_by(ItemFailure.item_key)
        )


def _lock_job(connection: Connection, job_id: uuid.UUID) -> Any:
    job = connection.execute(
        select(*Job.__table__.c).where(Job.job_id == job_id).with_for_update(key_share=True)
    ).one_or_none()
    if job is None:
        raise UserError(f"There is no job {job_id}. `shopvision jobs list` shows those there are.")
    return job
