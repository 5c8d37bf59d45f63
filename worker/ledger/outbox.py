"""Messages to Celery: written with the state that makes them due, sent afterwards by a relay.

A chunk's message never leaves before the transaction that made the chunk ready has committed, and never stays behind
if it has. The relay fills each queue only to a limit, so that Redis stays small whatever the job's size. Messages of
urgent jobs leave first, and a queue that is full of others has as much room again for them.
"""

from __future__ import annotations

from typing import Protocol

import structlog
from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal, select, text, update
from sqlalchemy.orm import Session

from shopvision.database import among, connect
from worker.ledger.tables import Chunk, ChunkState, Job, OutboxMessage

log = structlog.get_logger(__name__)


# The queues that have due messages, found by jumping from queue to queue along the index: a DISTINCT would walk every
# unsent message, which may be a million, at every look.
_WAITING_QUEUES = text(
    """
    WITH RECURSIVE earliest AS (
        (SELECT urgent, queue, not_before FROM outbox WHERE sent_at IS NULL
         ORDER BY urgent, queue, not_before LIMIT 1)
        UNION ALL
        SELECT following.* FROM earliest, LATERAL (
            SELECT urgent, queue, not_before FROM outbox
            WHERE sent_at IS NULL AND (urgent, queue) > (earliest.urgent, earliest.queue)
            ORDER BY urgent, queue, not_before LIMIT 1) AS following)
    SELECT urgent, queue FROM earliest WHERE not_before <= now() ORDER BY urgent DESC, queue
    """
)


class Broker(Protocol):
    """What the relay needs of a broker."""

    def depth(self, queue: str) -> int:
        """Messages waiting in ``queue``."""

    def send(self, task: str, chunk_id: int, queue: str, *, urgent: bool) -> None:
        """Publish one message; workers take urgent ones first."""


def enqueue_chunks(session: Session | Connection, which: ColumnElement[bool]) -> None:
    """Write a message for every ready chunk that ``which`` selects and that has none waiting already."""
    waiting = select(OutboxMessage.message_id).where(
        OutboxMessage.chunk_id == Chunk.chunk_id, OutboxMessage.sent_at.is_(None)
    )
    session.execute(
        insert(OutboxMessage).from_select(
            ["chunk_id", "task", "queue", "urgent", "not_before"],
            select(
                Chunk.chunk_id,
                literal("tasks.") + Job.kind + literal(".") + Chunk.phase,
                Chunk.queue,
                Job.urgent,
                Chunk.not_before,
            )
            .join(Job, Job.job_id == Chunk.job_id)
            .where(which, Chunk.state == ChunkState.READY, ~waiting.exists())
            .order_by(Chunk.chunk_id),
        )
    )


def relay(broker: Broker, depth_limit: int) -> bool:
    """Send what is due, queue by queue, up to ``depth_limit`` messages waiting in each.

    Several relays may run at once: each takes rows that no other holds. A relay that dies after publishing and before
    its commit sends again, which the claim makes harmless.

    Returns:
        True where a full queue kept messages back, so that the caller looks again soon.
    """
    with connect() as connection:
        waiting = connection.execute(_WAITING_QUEUES).all()
    kept_back = [
        _relay_queue(broker, queue, 2 * depth_limit if urgent else depth_limit, urgent=urgent)
        for urgent, queue in waiting
    ]
    return any(kept_back)


def _relay_queue(broker: Broker, queue: str, depth_limit: int, *, urgent: bool) -> bool:
    room = depth_limit - broker.depth(queue)
    if room <= 0:
        return True
    with connect() as connection:
        messages = connection.execute(
            select(OutboxMessage.message_id, OutboxMessage.task, OutboxMessage.chunk_id, Chunk.state)
            .join(Chunk, Chunk.chunk_id == OutboxMessage.chunk_id)
            .where(
                OutboxMessage.queue == queue,
                OutboxMessage.urgent == urgent,
                OutboxMessage.sent_at.is_(None),
                OutboxMessage.not_before <= func.now(),
            )
            .order_by(OutboxMessage.not_before, OutboxMessage.message_id)
            .limit(room)
            .with_for_update(of=OutboxMessage.__table__, skip_locked=True)
        ).all()
        due = [message for message in messages if message.state == ChunkState.READY]
        moot = [message.message_id for message in messages if message.state != ChunkState.READY]
        for message in due:
            broker.send(message.task, message.chunk_id, queue, urgent=urgent)
        if due:
            connection.execute(
                update(OutboxMessage)
                .where(among(OutboxMessage.message_id, [message.message_id for message in due]))
                .values(sent_at=func.now())
            )
            connection.execute(
                update(Chunk)
                .where(among(Chunk.chunk_id, [message.chunk_id for message in due]))
                .values(sent_at=func.now())
            )
        if moot:
            connection.execute(delete(OutboxMessage).where(among(OutboxMessage.message_id, moot)))
    if due:
        log.debug("outbox_relayed", queue=queue, messages=len(due))
    return len(messages) == room
