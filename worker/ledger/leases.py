"""Who may work on a chunk: claimed under a lease, kept alive by a heartbeat, changed only behind the fence.

The attempt number is the fencing token. Every change of a leased chunk is conditional on it, so a worker that was
thought dead and comes back late changes nothing. Lock order everywhere: chunk, then results, then job.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, case, func, select, update
from sqlalchemy.orm import aliased

from shopvision.database import connect
from shopvision.errors import ShopvisionError
from shopvision.settings import get_settings
from worker.kinds import Phase
from worker.ledger.tables import Chunk, ChunkState, Job, JobState


class LeaseLostError(ShopvisionError):
    """The chunk was given to another worker, or is already done: what this attempt made is thrown away."""


class StepStoppedError(ShopvisionError):
    """A step that makes its result only at its end was asked to stop before: it is handed back and begins anew."""


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


def claim_next(lease: Lease, worker: str) -> Lease | None:
    """Take the chunk that comes after ``lease``'s in the same job, before its message arrives.

    None where others would have to wait for that: where another job's chunks are ready for the same processes, or no
    more of this job's than are being worked on. None, too, where an attempt has died: whatever kills a process is
    found with nothing beside it.
    """
    queue = select(Chunk.queue).where(Chunk.chunk_id == lease.chunk_id).scalar_subquery()
    other = aliased(Chunk)
    sent = (Chunk.state == ChunkState.READY) & Chunk.sent_at.is_not(None)
    others_wait = select(other.chunk_id).where(
        other.state == ChunkState.READY,
        other.sent_at.is_not(None),
        other.job_id != lease.job_id,
        same_processes(other.queue, queue),
    )
    in_work = select(func.count()).where(other.job_id == lease.job_id, other.state == ChunkState.LEASED)
    with connect() as connection:
        chunk_id = connection.scalar(
            select(Chunk.chunk_id)
            .where(
                sent,
                Chunk.job_id == lease.job_id,
                Chunk.phase == Phase.CHUNK,
                Chunk.deaths == 0,
                ~Chunk.half,
                Chunk.not_before <= func.now(),
                ~others_wait.exists(),
                ~select(other.chunk_id)
                .where(other.chunk_id == lease.chunk_id, (other.deaths > 0) | other.half)
                .exists(),
            )
            .order_by(Chunk.chunk_id)
            .offset(in_work.scalar_subquery())
            .limit(1)
        )
    return None if chunk_id is None else claim(chunk_id, worker)


def same_processes(queue: SQLColumnExpression[str], other: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """Whether two queues are served by the same processes, as all of ``gpu.*`` are."""
    return func.split_part(queue, ".", 1) == func.split_part(other, ".", 1)


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
            same_processes(other_chunk.queue, Chunk.queue),
        )
    )
    with connect() as connection:
        row = connection.execute(
            update(Chunk)
            .where(*mine(lease), Job.job_id == Chunk.job_id)
            .values(lease_until=_lease_until())
            .returning(Job.state, Job.cancel_requested_at, (~Job.urgent & urgent_waiting.exists()).label("outranked"))
        ).one_or_none()
    if row is None:
        return Pulse(alive=False, cancelled=False, outranked=False)
    cancelled = row.cancel_requested_at is not None or row.state != JobState.RUNNING
    return Pulse(alive=True, cancelled=cancelled, outranked=row.outranked)


def mine(lease: Lease) -> list[Any]:
    """The conditions under which a chunk's row is this attempt's to change."""
    return [Chunk.chunk_id == lease.chunk_id, Chunk.attempt == lease.attempt, Chunk.state == ChunkState.LEASED]


def fence(connection: Connection, lease: Lease, **values: Any) -> None:
    """Change the chunk's row while ``lease`` is the current one.

    Raises:
        LeaseLostError: it is not; the caller's transaction must not be committed.
    """
    won = connection.execute(update(Chunk).where(*mine(lease)).values(lease_until=None, **values)).rowcount
    if won != 1:
        raise LeaseLostError(f"Chunk {lease.chunk_id}: attempt {lease.attempt} is no longer the current one.")


def _lease_until() -> Any:
    return func.now() + timedelta(seconds=get_settings().lease_seconds)
