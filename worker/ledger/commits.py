"""How an attempt at a chunk ends with a word: committed once, given back, or the end of its job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update

from shopvision.database import connect
from worker.input_checks import storable
from worker.kinds import ChunkResult
from worker.ledger.failures import record_failures
from worker.ledger.leases import Lease, fence
from worker.ledger.lifecycle import add_counters, count_down, fail, settle_ready
from worker.ledger.tables import Chunk, ChunkState, Job


def commit(lease: Lease, result: ChunkResult) -> None:
    """Store a chunk's results, failures and counters, and mark it done, in one fenced transaction.

    What the chunk was stopped short of goes back to the queue, or stays for ``resume`` where the job was cancelled.

    Raises:
        LeaseLostError: this attempt is no longer the current one; nothing was written.
    """
    with connect() as connection:
        if result.remaining:
            fence(
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
            fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        if result.write is not None:
            result.write(connection)
        record_failures(connection, lease.job_id, result.failures)
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
            settle_ready(connection, lease.chunk_id, lease.job_id)
        else:
            count_down(connection, lease.job_id)


def commit_finish(lease: Lease, result: dict[str, Any]) -> None:
    """Store a job's result and end it.

    Raises:
        LeaseLostError: another attempt finishes, or has finished, the job.
    """
    with connect() as connection:
        fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        connection.execute(update(Job).where(Job.job_id == lease.job_id).values(result=result))
        count_down(connection, lease.job_id)


def give_back(lease: Lease, error: str, delay_seconds: float) -> None:
    """Return a chunk whose dependency is away; it is sent again after ``delay_seconds``."""
    with connect() as connection:
        fence(
            connection,
            lease,
            state=ChunkState.READY,
            postponed=Chunk.postponed + 1,
            error=storable(error),
            sent_at=None,
            not_before=func.now() + timedelta(seconds=delay_seconds),
        )
        settle_ready(connection, lease.chunk_id, lease.job_id)


def hand_back(lease: Lease) -> None:
    """Return a chunk that was asked to stop before it had come to anything; it is sent again at once."""
    with connect() as connection:
        fence(connection, lease, state=ChunkState.READY, sent_at=None, not_before=func.now())
        settle_ready(connection, lease.chunk_id, lease.job_id)


def fail_job(lease: Lease, error: str) -> None:
    """End the whole job because of this chunk."""
    with connect() as connection:
        fence(
            connection,
            lease,
            state=ChunkState.FAILED,
            finished_at=func.now(),
            error=storable(error),
        )
        connection.execute(select(Job.job_id).where(Job.job_id == lease.job_id).with_for_update(key_share=True))
        fail(connection, lease.job_id, storable(error))
