"""From a job's item keys to its chunks: keys to disk first, without any lock, then one short fenced transaction."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any

from sqlalchemy import func, update

from shopvision.database import connect, copy_rows
from shopvision.errors import JobError
from worker.input_checks import require_item_key
from worker.kinds import Phase
from worker.ledger.leases import Lease, fence
from worker.ledger.lifecycle import count_down, is_stopped, put_aside
from worker.ledger.running_step import RunningStep
from worker.ledger.tables import Chunk, ChunkState, Job

SMALLEST_CHUNK = 64
CHUNKS_PER_SIZE = 4
SPOOLED_AT_ONCE = 64  # keys
IN_MEMORY_BYTES = 4 << 20
_CHUNK_COLUMNS = [
    ("job_id", "uuid"), ("phase", "text"), ("queue", "text"), ("item_keys", "text[]"), ("item_count", "int4"),
]  # fmt: skip


class SpooledKeys:
    """Item keys; a file holds them where they are many."""

    def __init__(self, file: IO[bytes], chunk_size: int) -> None:
        self._file, self._chunk_size = file, chunk_size
        self.items = 0

    def append(self, keys: list[str]) -> None:
        """Add some."""
        try:
            self._file.write(json.dumps(keys).encode() + b"\n")
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise JobError(
                f"The disk of {tempfile.gettempdir()} is full: free space, or set TMPDIR to another disk."
            ) from None
        self.items += len(keys)

    def chunks(self) -> Iterator[list[str]]:
        """All of them, cut."""
        self._file.seek(0)
        keys = chain.from_iterable(map(json.loads, self._file))
        for size in chunk_sizes(self.items, self._chunk_size):
            yield list(islice(keys, size))


@contextmanager
def spool(keys: Iterable[str], chunk_size: int, step: RunningStep) -> Iterator[SpooledKeys]:
    """Every key, read, for the length of a ``with`` block.

    Reading may take many minutes, in which the heartbeat goes on and nothing is locked.

    Raises:
        StepStoppedError: the step was asked to stop before all keys were there.
        LeaseLostError: another attempt splits the job.
        JobError: a key is no text or too long, or the disk is full.
    """
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file:
        spooled = SpooledKeys(file, chunk_size)
        iterator = iter(keys)
        while True:
            part = list(map(require_item_key, islice(iterator, SPOOLED_AT_ONCE)))
            spooled.append(part)
            if len(part) < SPOOLED_AT_ONCE or step.should_stop():
                break
        step.raise_if_stopped()  # also where the kind itself has asked and ended early
        yield spooled


def commit_split(lease: Lease, params: dict[str, Any], keys: SpooledKeys, queue: str) -> None:
    """Store the chunks of a job's round in one fenced transaction.

    Args:
        lease: of the split chunk.
        params: the job's parameters with what ``pin`` fixed.
        keys: of the round's items.
        queue: where the chunks are worked on.

    Raises:
        LeaseLostError: another attempt has split the job, or is about to.
    """
    with connect() as connection:
        rows = ((lease.job_id, str(Phase.CHUNK), queue, chunk, len(chunk)) for chunk in keys.chunks())
        copy_rows(connection, Chunk.__tablename__, _CHUNK_COLUMNS, rows)
        # Only now: the fence locks the row that the heartbeat writes.
        fence(connection, lease, state=ChunkState.DONE, finished_at=func.now(), error=None)
        connection.execute(
            update(Job)
            .where(Job.job_id == lease.job_id)
            .values(params=params, items_total=func.coalesce(Job.items_total, 0) + keys.items)
        )
        if is_stopped(connection, lease.job_id):
            put_aside(connection, Chunk.job_id == lease.job_id)
        count_down(connection, lease.job_id)


def chunk_sizes(items: int, largest: int) -> list[int]:
    """How many items the chunks of a job have.

    Small ones come first, so that a small job keeps every worker busy and a large one shows progress at once; and small
    ones come last, so that no worker has a large one left when the others have nothing to do any more.
    """
    smallest = min(largest, max(SMALLEST_CHUNK, largest // 8))
    rising: list[int] = []
    left, size = items, smallest
    while left >= 2 * size:
        rising.append(size)
        left -= 2 * size
        if len(rising) % CHUNKS_PER_SIZE == 0:
            size = min(largest, 2 * size)
    falling = rising[::-1]
    if size == smallest:
        return [*[smallest] * (items // smallest), *([items % smallest] if items % smallest else [])]
    if left <= smallest:
        return [*rising, *falling, *([left] if left else [])]
    middle = [left] if left <= size else [left - left // 2, left // 2]
    return [*rising, *middle, *falling]
