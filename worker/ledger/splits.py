"""From a job's item keys to its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, repeat
from typing import Any

from sqlalchemy import func, update

from shopvision.database import connect, copy_rows
from worker.kinds import Phase
from worker.ledger.leases import Lease, fence
from worker.ledger.lifecycle import count_down
from worker.ledger.tables import Chunk, ChunkState, Job

SMALLEST_FIRST_CHUNK = 64
CHUNKS_PER_SIZE = 4


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
        for size in chunk_sizes(chunk_size):
            part = list(islice(iterator, size))
            if not part:
                return
            total += len(part)
            yield (lease.job_id, str(Phase.CHUNK), queue, part, len(part))

    with connect() as connection:
        fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
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
        count_down(connection, lease.job_id)


def chunk_sizes(largest: int) -> Iterator[int]:
    """Small ones first, so that a small job keeps every worker busy and a large one shows progress at once."""
    size = min(largest, max(SMALLEST_FIRST_CHUNK, largest // 8))
    while True:
        yield from repeat(size, CHUNKS_PER_SIZE)
        size = min(largest, 2 * size)
