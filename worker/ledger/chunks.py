"""One chunk's life: claimed under a lease, kept alive by a heartbeat, committed once, or given back.

The attempt number is the fencing token. Every change below is conditional on it, so a worker that was thought dead and
comes back late changes nothing. Lock order everywhere: chunk, then results, then job.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, repeat
from typing import Any

from sqlalchemy import Connection, case, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import aliased

from shopvision.database import connect, copy_rows
from shopvision.errors import ShopvisionError
from shopvision.settings import get_settings
from worker.kinds import ChunkResult, ItemFailed, Phase
from worker.ledger.jobs import add_counters, advance, end_if_cancelled, fail
from worker.ledger.outbox import enqueue_chunks
from worker.ledger.tables import Chunk, ChunkState, ItemFailure, Job, JobState

MAX_ERROR_LENGTH = 2000
SMALLEST_FIRST_CHUNK = 64
CHUNKS_PER_SIZE = 4


class LeaseLostError(ShopvisionError):
    """The chunk was given to another worker, or is already done: what this attempt made is thrown away."""


@dataclass(frozen=True)
class Lease:
    """The right to commit one attempt of one chunk."""

    chunk_id: int
    attempt: int
    job_id: uuid.UUID
    kind: str
    params: dict[str, Any]
    retry_of: uuid.UUID | None
    phase: Phase
    item_keys: list[str]
    postponed: int  # attempts in a row that ended because a dependency was away
    round: int = 1  # of a split: how often the job has been split, this time included


def _lease_until() -> Any:
    return func.now() + timedelta(seconds=get_settings().lease_seconds)


def claim(chunk_id: int, worker: str) -> Lease | None:
    """Take a ready chunk for ``worker``; None where it is not to be had (a duplicate message, a cancelled job)."""
    sibling = aliased(Chunk)
    splits = select(func.count()).where(sibling.job_id == Job.job_id, sibling.phase == Phase.SPLIT).scalar_subquery()
    with connect() as connection:
        row = connection.execute(
            update(Chunk)
            .where(
                Chunk.chunk_id == chunk_id,
                Chunk.state == ChunkState.READY,
                Job.job_id == Chunk.job_id,
                Job.state == JobState.RUNNING,
                Job.cancel_requested_at.is_(None),
            )
            .values(
                state=ChunkState.LEASED,
                attempt=Chunk.attempt + 1,
                lease_until=_lease_until(),
                worker=worker,
                started_at=func.now(),
            )
            .returning(
                Chunk.attempt,
                Chunk.phase,
                Chunk.item_keys,
                Chunk.postponed,
                Job.job_id,
                Job.kind,
                Job.params,
                Job.retry_of,
                Job.started_at,
                # Counted for splits only: an ordinary chunk may have many thousand siblings.
                case((Chunk.phase == Phase.SPLIT, splits), else_=1).label("round"),
            )
        ).one_or_none()
    if row is None:
        return None
    if row.started_at is None:
        with connect() as connection:
            connection.execute(
                update(Job).where(Job.job_id == row.job_id, Job.started_at.is_(None)).values(started_at=func.now())
            )
    return Lease(
        chunk_id,
        row.attempt,
        row.job_id,
        row.kind,
        row.params,
        row.retry_of,
        Phase(row.phase),
        row.item_keys,
        row.postponed,
        row.round,
    )


@dataclass(frozen=True)
class Pulse:
    """What a heartbeat learns."""

    alive: bool
    cancelled: bool
    outranked: bool  # an urgent job waits for a worker like this one


def heartbeat(lease: Lease) -> Pulse:
    """Extend the lease; says whether it is still ours, whether the job is to stop, and whether to make room."""
    other_job, other_chunk = aliased(Job), aliased(Chunk)
    urgent_waiting = (
        select(other_chunk.chunk_id)
        .join(other_job, other_job.job_id == other_chunk.job_id)
        .where(
            other_job.state == JobState.RUNNING,
            other_job.urgent,
            other_chunk.state == ChunkState.READY,
            other_chunk.sent_at.is_not(None),
            # The queues gpu.* are served by the same processes.
            func.split_part(other_chunk.queue, ".", 1) == func.split_part(Chunk.queue, ".", 1),
        )
    )
    with connect() as connection:
        row = connection.execute(
            update(Chunk)
            .where(*_mine(lease), Job.job_id == Chunk.job_id)
            .values(lease_until=_lease_until())
            .returning(Job.state, Job.cancel_requested_at, (~Job.urgent & urgent_waiting.exists()).label("outranked"))
        ).one_or_none()
    if row is None:
        return Pulse(alive=False, cancelled=False, outranked=False)
    cancelled = row.cancel_requested_at is not None or row.state != JobState.RUNNING
    return Pulse(alive=True, cancelled=cancelled, outranked=row.outranked)


def commit(lease: Lease, result: ChunkResult) -> None:
    """Store a chunk's results, failures and counters, and mark it done, in one fenced transaction.

    What the chunk was stopped short of goes back to the queue, or stays for ``resume`` where the job was cancelled.

    Raises:
        LeaseLostError: this attempt is no longer the current one; nothing was written.
    """
    with connect() as connection:
        if result.remaining:
            _fence(
                connection,
                lease,
                state=ChunkState.READY,
                item_keys=result.remaining,
                item_count=len(result.remaining),
                deaths=0,
                postponed=0,
                sent_at=None,
                not_before=func.now(),
            )
        else:
            _fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        if result.write is not None:
            result.write(connection)
        _record_failures(connection, lease.job_id, result.failures)
        connection.execute(
            add_counters(
                lease.job_id,
                done=result.done,
                skipped=result.skipped,
                failed=len(result.failures),
                counters=result.counters,
            )
        )
        if result.remaining:
            _settle_ready(connection, lease.chunk_id, lease.job_id)
        else:
            _count_down(connection, lease.job_id)


def commit_split(lease: Lease, params: dict[str, Any], keys: Iterable[str], chunk_size: int, queue: str) -> None:
    """Store the chunks of a job's round, streamed, in one fenced transaction.

    Args:
        lease: of the split chunk.
        params: the job's parameters with what ``pin`` fixed.
        keys: every item key. It reads through a connection of its own.
        chunk_size: keys per chunk, at most.
        queue: where the chunks are worked on.

    Raises:
        LeaseLostError: another attempt has split the job, or is about to.
    """
    total = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal total
        iterator = iter(keys)
        for size in _chunk_sizes(chunk_size):
            part = list(islice(iterator, size))
            if not part:
                return
            total += len(part)
            yield (lease.job_id, str(Phase.CHUNK), queue, part, len(part))

    with connect() as connection:
        _fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        columns = [
            ("job_id", "uuid"),
            ("phase", "text"),
            ("queue", "text"),
            ("item_keys", "text[]"),
            ("item_count", "int4"),
        ]
        copy_rows(connection, Chunk.__tablename__, columns, rows())
        connection.execute(
            update(Job)
            .where(Job.job_id == lease.job_id)
            .values(params=params, items_total=func.coalesce(Job.items_total, 0) + total)
        )
        _count_down(connection, lease.job_id)


def _chunk_sizes(largest: int) -> Iterator[int]:
    """Small ones first, so that a small job keeps every worker busy and a large one shows progress at once."""
    size = min(largest, max(SMALLEST_FIRST_CHUNK, largest // 8))
    while True:
        yield from repeat(size, CHUNKS_PER_SIZE)
        size = min(largest, 2 * size)


def commit_finish(lease: Lease, result: dict[str, Any]) -> None:
    """Store a job's result and end it.

    Raises:
        LeaseLostError: another attempt finishes, or has finished, the job.
    """
    with connect() as connection:
        _fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        connection.execute(update(Job).where(Job.job_id == lease.job_id).values(result=result))
        _count_down(connection, lease.job_id)


def give_back(lease: Lease, error: str, delay_seconds: float) -> None:
    """Return a chunk whose dependency is away; it is sent again after ``delay_seconds``."""
    with connect() as connection:
        _fence(
            connection,
            lease,
            state=ChunkState.READY,
            postponed=Chunk.postponed + 1,
            error=error[:MAX_ERROR_LENGTH],
            sent_at=None,
            not_before=func.now() + timedelta(seconds=delay_seconds),
        )
        _settle_ready(connection, lease.chunk_id, lease.job_id)


def fail_job(lease: Lease, error: str) -> None:
    """End the whole job because of this chunk."""
    with connect() as connection:
        _fence(connection, lease, state=ChunkState.FAILED, finished_at=func.now(), error=error[:MAX_ERROR_LENGTH])
        connection.execute(select(Job.job_id).where(Job.job_id == lease.job_id).with_for_update())
        fail(connection, lease.job_id, error[:MAX_ERROR_LENGTH])


def record_death(chunk_id: int, error: str, *, attempt: int | None = None, worker: str | None = None) -> None:
    """Note that an attempt ended without a result, and decide what becomes of the chunk.

    Up to ``deaths_before_split`` deaths it is tried again as it is. Then it is cut in half, so that after a few rounds
    only the poison item is left, which becomes an item failure. A half needs only one death to be cut again.

    Args:
        chunk_id: the chunk.
        error: what is known of the end.
        attempt: act only while this attempt holds the lease.
        worker: act only while a process of this worker (name before the slash) holds the lease.
    """
    settings = get_settings()
    with connect() as connection:
        conditions = [Chunk.chunk_id == chunk_id, Chunk.state == ChunkState.LEASED]
        if attempt is not None:
            conditions.append(Chunk.attempt == attempt)
        if worker is not None:
            conditions.append(func.split_part(Chunk.worker, "/", 1) == worker)
        chunk = connection.execute(
            select(*Chunk.__table__.c).where(*conditions).with_for_update(skip_locked=True)
        ).one_or_none()
        if chunk is None:
            return
        deaths = chunk.deaths + 1
        divisible = chunk.phase == Phase.CHUNK and chunk.item_count > 1
        limit = 1 if chunk.half and divisible else settings.deaths_before_split
        values: dict[str, Any] = {"deaths": deaths, "error": error[:MAX_ERROR_LENGTH], "finished_at": func.now()}
        if deaths < limit:
            values |= {"state": ChunkState.READY, "finished_at": None, "sent_at": None, "not_before": func.now()}
        elif divisible:
            values |= {"state": ChunkState.DIVIDED}
        elif chunk.phase == Phase.CHUNK:
            values |= {"state": ChunkState.DONE}
        else:
            values |= {"state": ChunkState.FAILED}
        connection.execute(update(Chunk).where(Chunk.chunk_id == chunk_id).values(values))
        _after_death(connection, chunk, ChunkState(values["state"]), error)


def _after_death(connection: Connection, chunk: Any, state: ChunkState, error: str) -> None:
    if state == ChunkState.READY:
        _settle_ready(connection, chunk.chunk_id, chunk.job_id)
    elif state == ChunkState.DIVIDED:
        middle = chunk.item_count // 2
        halves = [chunk.item_keys[:middle], chunk.item_keys[middle:]]
        new_ids = connection.scalars(
            insert(Chunk).returning(Chunk.chunk_id),
            [
                {
                    "job_id": chunk.job_id,
                    "phase": chunk.phase,
                    "queue": chunk.queue,
                    "item_keys": keys,
                    "item_count": len(keys),
                    "half": True,
                }
                for keys in halves
            ],
        ).all()
        connection.execute(update(Job).where(Job.job_id == chunk.job_id).values(chunks_left=Job.chunks_left + 1))
        for new_id in new_ids:
            _settle_ready(connection, new_id, chunk.job_id)
    elif state == ChunkState.DONE:
        failure = ItemFailed(chunk.item_keys[0], "poison", f"Processing this item ended its worker each time: {error}")
        _record_failures(connection, chunk.job_id, [failure])
        connection.execute(add_counters(chunk.job_id, done=0, skipped=0, failed=1, counters={}))
        _count_down(connection, chunk.job_id)
    else:
        connection.execute(select(Job.job_id).where(Job.job_id == chunk.job_id).with_for_update())
        fail(
            connection,
            chunk.job_id,
            f"The {chunk.phase} step ended without a result {chunk.deaths + 1} times: {error}"[:MAX_ERROR_LENGTH],
        )


def _mine(lease: Lease) -> list[Any]:
    return [Chunk.chunk_id == lease.chunk_id, Chunk.attempt == lease.attempt, Chunk.state == ChunkState.LEASED]


def _fence(connection: Connection, lease: Lease, **values: Any) -> None:
    won = connection.execute(update(Chunk).where(*_mine(lease)).values(lease_until=None, **values)).rowcount
    if won != 1:
        raise LeaseLostError(f"Chunk {lease.chunk_id}: attempt {lease.attempt} is no longer the current one.")


def _count_down(connection: Connection, job_id: uuid.UUID) -> None:
    left = connection.scalar(
        update(Job).where(Job.job_id == job_id).values(chunks_left=Job.chunks_left - 1).returning(Job.chunks_left)
    )
    if left == 0:
        advance(connection, job_id)
    end_if_cancelled(connection, job_id)


def _settle_ready(connection: Connection, chunk_id: int, job_id: uuid.UUID) -> None:
    """Send a chunk that became ready again, or put it aside where its job has been stopped."""
    job = connection.execute(
        select(Job.state, Job.cancel_requested_at).where(Job.job_id == job_id).with_for_update()
    ).one()
    if job.state == JobState.RUNNING and job.cancel_requested_at is None:
        enqueue_chunks(connection, Chunk.chunk_id == chunk_id)
        return
    connection.execute(
        update(Chunk).where(Chunk.chunk_id == chunk_id).values(state=ChunkState.CANCELLED, finished_at=func.now())
    )
    end_if_cancelled(connection, job_id)


def _record_failures(connection: Connection, job_id: uuid.UUID, failures: list[ItemFailed]) -> None:
    if not failures:
        return
    statement = upsert(ItemFailure)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "item_key"],
            set_={"code": statement.excluded.code, "message": statement.excluded.message, "failed_at": func.now()},
        ),
        [
            {
                "job_id": job_id,
                "item_key": failure.key,
                "code": failure.code,
                "message": failure.message[:MAX_ERROR_LENGTH].replace("\x00", ""),
            }
            for failure in failures
        ],
    )
