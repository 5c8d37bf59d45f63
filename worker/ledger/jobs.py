"""Jobs as a whole: submit, cancel, resume, retry what failed, and how they end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Update, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shopvision.database import connect
from shopvision.errors import UserError
from worker.kinds import Phase, get_kind, parse_params
from worker.ledger.outbox import enqueue_chunks
from worker.ledger.tables import Chunk, ChunkState, ItemFailure, Job, JobState

SPLIT_QUEUE = "control"


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
        UserError: unknown kind or wrong parameters.
    """
    job_kind = get_kind(kind)
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
        connection.execute(
            update(Chunk)
            .where(Chunk.job_id == job_id, Chunk.state == ChunkState.READY)
            .values(state=ChunkState.CANCELLED, finished_at=func.now())
        )
        return end_if_cancelled(connection, job_id)


def end_if_cancelled(connection: Connection, job_id: uuid.UUID) -> JobState:
    """Mark a job cancelled once nobody works on it any more. The caller holds the job's row lock."""
    state = connection.scalar(
        update(Job)
        .where(
            Job.job_id == job_id,
            Job.state == JobState.RUNNING,
            Job.cancel_requested_at.is_not(None),
            ~select(Chunk.chunk_id).where(Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED).exists(),
        )
        .values(state=JobState.CANCELLED, finished_at=func.now())
        .returning(Job.state)
    )
    return JobState(state) if state else JobState.RUNNING


def fail(connection: Connection, job_id: uuid.UUID, error: str) -> None:
    """End a job with an error; its waiting chunks are put aside so that ``resume`` can take them up again."""
    connection.execute(
        update(Job)
        .where(Job.job_id == job_id, Job.state == JobState.RUNNING)
        .values(state=JobState.FAILED, error=error, finished_at=func.now())
    )
    connection.execute(
        update(Chunk)
        .where(Chunk.job_id == job_id, Chunk.state == ChunkState.READY)
        .values(state=ChunkState.CANCELLED, finished_at=func.now())
    )


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

    Raises:
        UserError: no such job, it is still running, or none of its items failed.
    """
    with connect() as connection:
        job = _lock_job(connection, job_id)
        if job.state == JobState.RUNNING:
            raise UserError(f"Job {job_id} is still running: wait for its end, or cancel it.")
        if not connection.scalar(select(select(ItemFailure).where(ItemFailure.job_id == job_id).exists())):
            raise UserError(f"Job {job_id} has no failed items: there is nothing to retry.")
        return submit(connection, job.kind, job.params, source="retry", retry_of=job_id)


def failed_keys(job_id: uuid.UUID) -> Iterator[str]:
    """Keys of the items that failed in a job, streamed."""
    with connect() as connection:
        yield from connection.execution_options(yield_per=5000).scalars(
            select(ItemFailure.item_key).where(ItemFailure.job_id == job_id).order_by(ItemFailure.item_key)
        )


def advance(connection: Connection, job_id: uuid.UUID) -> None:
    """Move a job whose phase is complete to the next one. The caller holds the job's row lock."""
    job = connection.execute(
        select(
            Job.kind, Job.phase, Job.state, Job.cancel_requested_at, Job.retry_of, Job.items_total, Job.items_failed
        ).where(Job.job_id == job_id)
    ).one()
    if job.state != JobState.RUNNING or job.cancel_requested_at is not None:
        return
    if job.phase == Phase.FINISH:
        _succeed(connection, job_id, job.items_total, job.items_failed)
        return
    if job.phase == Phase.SPLIT:
        waiting = connection.scalar(
            select(func.count()).where(
                Chunk.job_id == job_id, Chunk.phase == Phase.CHUNK, Chunk.state == ChunkState.READY
            )
        )
        if waiting:
            connection.execute(update(Job).where(Job.job_id == job_id).values(phase=Phase.CHUNK, chunks_left=waiting))
            enqueue_chunks(connection, (Chunk.job_id == job_id) & (Chunk.phase == Phase.CHUNK))
            return
    kind = get_kind(job.kind)
    splits = connection.scalar(select(func.count()).where(Chunk.job_id == job_id, Chunk.phase == Phase.SPLIT))
    if job.retry_of is None and (splits or 0) < kind.rounds:
        phase, queue = Phase.SPLIT, SPLIT_QUEUE
    else:
        phase, queue = Phase.FINISH, kind.finish_queue
    connection.execute(update(Job).where(Job.job_id == job_id).values(phase=phase, chunks_left=1))
    connection.execute(insert(Chunk).values(job_id=job_id, phase=phase, queue=queue))
    enqueue_chunks(connection, (Chunk.job_id == job_id) & (Chunk.phase == phase))


def _succeed(connection: Connection, job_id: uuid.UUID, total: int | None, failed: int) -> None:
    if total and failed == total:
        code, message = connection.execute(
            select(ItemFailure.code, func.min(ItemFailure.message))
            .where(ItemFailure.job_id == job_id)
            .group_by(ItemFailure.code)
            .order_by(func.count().desc())
            .limit(1)
        ).one()
        fail(connection, job_id, f"Every one of the {total} items failed, most of them with {code}: {message}")
        return
    connection.execute(update(Job).where(Job.job_id == job_id).values(state=JobState.SUCCEEDED, finished_at=func.now()))


def _lock_job(connection: Connection, job_id: uuid.UUID) -> Any:
    job = connection.execute(select(*Job.__table__.c).where(Job.job_id == job_id).with_for_update()).one_or_none()
    if job is None:
        raise UserError(f"There is no job {job_id}. `shopvision jobs list` shows those there are.")
    return job


def add_counters(job_id: uuid.UUID, *, done: int, skipped: int, failed: int, counters: dict[str, int]) -> Update:
    """The statement that adds one chunk's numbers to its job; every counter is a sum over chunks."""
    sums = [
        part
        for name, value in counters.items()
        for part in (literal(name), func.coalesce(Job.counters[name].as_integer(), 0) + value)
    ]
    return (
        update(Job)
        .where(Job.job_id == job_id)
        .values(
            items_done=Job.items_done + done,
            items_skipped=Job.items_skipped + skipped,
            items_failed=Job.items_failed + failed,
            counters=Job.counters.op("||")(func.jsonb_build_object(*sums)),
        )
    )
