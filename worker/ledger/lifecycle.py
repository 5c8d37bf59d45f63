"""How a job moves by itself: from splitting to its chunks to the finish step, to success, failure or cancellation.

Called inside the transactions that make it so. Whoever makes a chunk ready calls ``settle_ready``, so that no ready
chunk is left behind in a job that has been stopped.
"""

from __future__ import annotations

import uuid

from sqlalchemy import ColumnElement, Connection, Update, func, insert, literal, select, update

from worker.kinds import Phase, get_kind
from worker.ledger.outbox import enqueue_chunks
from worker.ledger.tables import Chunk, ChunkState, ItemFailure, Job, JobState

SPLIT_QUEUE = "control"


def count_down(connection: Connection, job_id: uuid.UUID) -> None:
    """One chunk of the job's phase is done; the last one moves the job on. Takes the job's row lock."""
    left = connection.scalar(
        update(Job).where(Job.job_id == job_id).values(chunks_left=Job.chunks_left - 1).returning(Job.chunks_left)
    )
    if left == 0:
        advance(connection, job_id)
    end_if_cancelled(connection, job_id)


def settle_ready(connection: Connection, chunk_id: int, job_id: uuid.UUID) -> None:
    """Send a chunk that became ready again, or put it aside where its job has been stopped."""
    if not is_stopped(connection, job_id):
        enqueue_chunks(connection, Chunk.chunk_id == chunk_id)
        return
    put_aside(connection, Chunk.chunk_id == chunk_id)
    end_if_cancelled(connection, job_id)


def is_stopped(connection: Connection, job_id: uuid.UUID) -> bool:
    """Whether the job has ended or is to end, so that none of its chunks may wait for a worker. Takes its row lock."""
    job = connection.execute(
        select(Job.state, Job.cancel_requested_at).where(Job.job_id == job_id).with_for_update(key_share=True)
    ).one()
    return job.state != JobState.RUNNING or job.cancel_requested_at is not None


def put_aside(connection: Connection, which: ColumnElement[bool]) -> None:
    """Take ready chunks out of the way; ``resume`` makes them ready again."""
    connection.execute(
        update(Chunk)
        .where(which, Chunk.state == ChunkState.READY)
        .values(state=ChunkState.CANCELLED, finished_at=func.now())
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
    put_aside(connection, Chunk.job_id == job_id)


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
