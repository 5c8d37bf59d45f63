"""How an attempt at a chunk ends without a word: its process died, crashed, or fell silent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.orm import aliased

from shopvision.database import connect
from shopvision.settings import get_settings
from worker.input_checks import storable
from worker.kinds import ItemFailed, Phase, get_kind
from worker.ledger.failures import record_failures
from worker.ledger.lifecycle import add_counters, count_down, fail, settle_ready
from worker.ledger.tables import Chunk, ChunkState, Job


def record_process_death(chunk_id: int, error: str, *, worker: str) -> None:
    """Note that a process of ``worker`` ended while it worked on the message of a chunk, or on what it took ahead.

    Args:
        chunk_id: the chunk of the message.
        error: what is known of the end.
        worker: name before the slash.
    """
    own = aliased(Chunk)
    with connect() as connection:
        held = connection.scalars(
            select(Chunk.chunk_id)
            .join(own, own.worker == Chunk.worker)
            .where(
                own.chunk_id == chunk_id,
                func.split_part(own.worker, "/", 1) == worker,
                Chunk.state == ChunkState.LEASED,
            )
            .order_by(Chunk.chunk_id)
        ).all()
    for one in held:
        record_death(one, error, worker=worker)


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
        values: dict[str, Any] = {
            "deaths": deaths,
            "error": storable(error),
            "finished_at": func.now(),
        }
        if deaths < limit:
            values |= {"state": ChunkState.READY, "finished_at": None, "sent_at": None, "not_before": func.now()}
        elif divisible:
            values |= {"state": ChunkState.DIVIDED}
        elif chunk.phase == Phase.CHUNK:
            values |= {"state": ChunkState.DONE}
        else:
            values |= {"state": ChunkState.FAILED}
        connection.execute(update(Chunk).where(Chunk.chunk_id == chunk_id).values(values))
        _settle_death(connection, chunk, ChunkState(values["state"]), error)


def _settle_death(connection: Connection, chunk: Any, state: ChunkState, error: str) -> None:
    if state == ChunkState.READY:
        settle_ready(connection, chunk.chunk_id, chunk.job_id)
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
            settle_ready(connection, new_id, chunk.job_id)
    elif state == ChunkState.DONE:
        kind = get_kind(connection.scalars(select(Job.kind).where(Job.job_id == chunk.job_id)).one())
        name = kind.name_of(chunk.job_id, chunk.item_keys[0])
        failure = ItemFailed(name, "poison", f"Processing this item ended its worker each time: {error}")
        record_failures(connection, chunk.job_id, [failure])
        connection.execute(add_counters(chunk.job_id, done=0, skipped=0, failed=1, counters={}))
        count_down(connection, chunk.job_id)
    else:
        connection.execute(select(Job.job_id).where(Job.job_id == chunk.job_id).with_for_update(key_share=True))
        fail(
            connection,
            chunk.job_id,
            storable(f"The {chunk.phase} step ended without a result {chunk.deaths + 1} times: {error}"),
        )
