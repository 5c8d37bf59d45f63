"""The ledger's tables: what was asked for, in which pieces it is worked on, and which items failed."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, SmallInteger, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.database.base import Base


class JobState(StrEnum):
    """Where a job is in its life."""

    RUNNING = "running"  # from submission on: splitting, working or finishing, as its chunks say
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    """Where a chunk is in its life."""

    READY = "ready"  # waiting: its message is in the outbox, in the queue, or lost (then the reaper sends another)
    LEASED = "leased"
    DONE = "done"
    DIVIDED = "divided"  # replaced by two halves
    CANCELLED = "cancelled"
    FAILED = "failed"  # a split or finish step that cannot be done


class Job(Base):
    """One request, whoever made it."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("kind", "idempotency_key"),
        Index("ix_jobs_state_created_at", "state", "created_at"),
        CheckConstraint("state IN ('running', 'succeeded', 'failed', 'cancelled')", name="state"),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str]
    params: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    source: Mapped[str] = mapped_column(
        comment="who asked: cli, task, schedule:<name>, retry, or the caller's own word"
    )
    urgent: Mapped[bool] = mapped_column(server_default=text("false"), comment="goes before jobs that are not")
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    phase: Mapped[str] = mapped_column(server_default=text("'split'"))
    items_total: Mapped[int | None]
    items_done: Mapped[int] = mapped_column(server_default=text("0"))
    items_skipped: Mapped[int] = mapped_column(server_default=text("0"), comment="of items_done: nothing had changed")
    items_failed: Mapped[int] = mapped_column(server_default=text("0"))
    chunks_left: Mapped[int] = mapped_column(server_default=text("1"), comment="of the current phase")
    counters: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), comment="numbers the kind keeps")
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    retry_of: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.job_id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(comment="first chunk claimed")
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]


class Chunk(Base):
    """A piece of a job, minutes of work at most, leased to one worker at a time.

    ``attempt`` is the fencing token: only the attempt that is still current may commit.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        Index("ix_chunks_job_id_state", "job_id", "state"),
        # Without lease_until on purpose: a heartbeat then touches no index and stays a cheap in-page update.
        Index("ix_chunks_open", "state", postgresql_where=text("state IN ('ready', 'leased')")),
        # What is on its way to a worker: few, however many chunks are ready.
        Index("ix_chunks_sent", "sent_at", postgresql_where=text("state = 'ready' AND sent_at IS NOT NULL")),
        CheckConstraint("state IN ('ready', 'leased', 'done', 'divided', 'cancelled', 'failed')", name="state"),
    )

    chunk_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"))
    phase: Mapped[str]
    queue: Mapped[str]
    item_keys: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    item_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    state: Mapped[str] = mapped_column(server_default=text("'ready'"))
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    deaths: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("0"), comment="attempts that ended without a word"
    )
    postponed: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("0"), comment="how often in a row a dependency was away"
    )
    half: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="came from a chunk that killed its workers"
    )
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    sent_at: Mapped[datetime | None] = mapped_column(comment="when its newest message left the outbox")
    not_before: Mapped[datetime] = mapped_column(server_default=func.now(), comment="back-off after an error")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]


class ItemFailure(Base):
    """One item that could not be processed, and why."""

    __tablename__ = "item_failures"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
    item_key: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str]
    message: Mapped[str]
    failed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OutboxMessage(Base):
    """A message to Celery, written in the transaction that makes it due. A trigger notifies the relay at commit."""

    __tablename__ = "outbox"
    __table_args__ = (
        # In the order in which the relay sends, so that it reads what is due and nothing else.
        Index(
            "ix_outbox_unsent", "urgent", "queue", "not_before", "message_id", postgresql_where=text("sent_at IS NULL")
        ),
    )

    message_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunks.chunk_id", ondelete="CASCADE"), index=True)
    task: Mapped[str]
    queue: Mapped[str]
    urgent: Mapped[bool] = mapped_column(server_default=text("false"))
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]


class ScheduleWindow(Base):
    """The newest window of a schedule that was turned into a job (or was already past when the schedule appeared)."""

    __tablename__ = "schedule_windows"

    name: Mapped[str] = mapped_column(primary_key=True)
    window_at: Mapped[datetime]
