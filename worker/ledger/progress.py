"""Reading the ledger: progress, rate and time left, lists and failures."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, cast, func, select

from shopvision.database import connect
from shopvision.errors import UserError
from worker.ledger.tables import ItemFailure, Job, JobState


@dataclass(frozen=True)
class JobProgress:
    """One job, as of one moment. ``rate`` is items per second since the start, ``eta_seconds`` the time left at it."""

    job_id: uuid.UUID
    kind: str
    state: str
    phase: str
    total: int | None
    done: int
    skipped: int
    failed: int
    counters: dict[str, int]
    rate: float | None
    eta_seconds: float | None
    seconds: float | None
    source: str
    urgent: bool
    params: dict[str, Any]
    key: str | None
    retry_of: uuid.UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    result: dict[str, Any] | None
    error: str | None

    @property
    def state_text(self) -> str:
        """The state as a person should read it."""
        return "stopping" if self.state == JobState.RUNNING and self.cancel_requested_at else self.state

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            name: str(value) if isinstance(value, uuid.UUID | datetime) else value
            for name, value in asdict(self).items()
        }

    def sentence(self) -> str:
        """The outcome in one line."""
        facts = [f"{self.done} done"]
        if self.skipped:
            facts.append(f"{self.skipped} of them unchanged")
        if self.failed:
            facts.append(f"{self.failed} failed (see `shopvision jobs failures {str(self.job_id)[:8]}`)")
        line = f"{self.kind} {str(self.job_id)[:8]} {self.state} in {self.seconds or 0:.1f} s: {', '.join(facts)}"
        reason = self.error or (self.result or {}).get("reason")
        return f"{line}. {reason}" if reason else line


_SECONDS = func.extract("epoch", func.coalesce(Job.finished_at, func.now()) - Job.started_at)


def _progress(row: Any) -> JobProgress:
    seconds = float(row.seconds) if row.seconds is not None else None
    worked = row.items_done + row.items_failed
    rate = worked / seconds if seconds and worked else None
    left = (row.items_total or 0) - worked
    return JobProgress(
        job_id=row.job_id,
        kind=row.kind,
        state=row.state,
        phase=row.phase,
        total=row.items_total,
        done=row.items_done,
        skipped=row.items_skipped,
        failed=row.items_failed,
        counters=row.counters,
        rate=rate,
        eta_seconds=left / rate if rate and row.state == JobState.RUNNING else None,
        seconds=seconds,
        source=row.source,
        urgent=row.urgent,
        params=row.params,
        key=row.idempotency_key,
        retry_of=row.retry_of,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
        result=row.result,
        error=row.error,
    )


def job_progress(job_id: uuid.UUID) -> JobProgress:
    """The state of one job.

    Raises:
        UserError: there is no such job.
    """
    with connect() as connection:
        row = connection.execute(
            select(*Job.__table__.c, _SECONDS.label("seconds")).where(Job.job_id == job_id)
        ).one_or_none()
    if row is None:
        raise UserError(f"There is no job {job_id}. `shopvision jobs list` shows those there are.")
    return _progress(row)


def recent_jobs(*, kind: str | None = None, state: str | None = None, limit: int = 20) -> list[JobProgress]:
    """The newest jobs first.

    Raises:
        UserError: unknown state.
    """
    if state is not None and state not in set(JobState):
        raise UserError(f"Unknown state {state!r}. There are: {', '.join(JobState)}.")
    query = select(*Job.__table__.c, _SECONDS.label("seconds")).order_by(Job.created_at.desc()).limit(limit)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if state is not None:
        query = query.where(Job.state == state)
    with connect() as connection:
        return [_progress(row) for row in connection.execute(query)]


def find_job(prefix: str) -> uuid.UUID:
    """The job whose id starts with ``prefix``.

    Raises:
        UserError: none or several do.
    """
    literal_prefix = prefix.lower()
    if not re.fullmatch(r"[0-9a-f-]+", literal_prefix):
        raise UserError(f"There is no job {prefix!r}. `shopvision jobs list` shows those there are.")
    with connect() as connection:
        found = connection.scalars(
            select(Job.job_id)
            .where(cast(Job.job_id, Text).startswith(literal_prefix))
            .order_by(Job.created_at.desc())
            .limit(2)
        ).all()
    if not found:
        raise UserError(f"There is no job {prefix!r}. `shopvision jobs list` shows those there are.")
    if len(found) > 1:
        raise UserError(f"More than one job id begins with {prefix!r}: give more of it.")
    return found[0]


def list_failures(job_id: uuid.UUID, *, limit: int) -> list[dict[str, Any]]:
    """Failed items of a job, by code and key."""
    with connect() as connection:
        rows = connection.execute(
            select(ItemFailure.item_key, ItemFailure.code, ItemFailure.message, ItemFailure.failed_at)
            .where(ItemFailure.job_id == job_id)
            .order_by(ItemFailure.code, ItemFailure.item_key)
            .limit(limit)
        ).all()
    return [{**row._asdict(), "failed_at": str(row.failed_at)} for row in rows]


def recently_failed(kind: str, *, within: timedelta, but_not: Collection[str] = ()) -> set[str]:
    """Keys of items that failed in jobs of ``kind`` lately, for other reasons than the codes ``but_not``."""
    with connect() as connection:
        return set(
            connection.scalars(
                select(ItemFailure.item_key)
                .join(Job, Job.job_id == ItemFailure.job_id)
                .where(Job.kind == kind, ItemFailure.failed_at > func.now() - within, ItemFailure.code.not_in(but_not))
            )
        )


def keys_failed_with(job_id: uuid.UUID, codes: Collection[str]) -> list[str]:
    """Keys of a job's items that failed with one of some reason codes."""
    query = select(ItemFailure.item_key).where(ItemFailure.job_id == job_id, ItemFailure.code.in_(codes))
    with connect() as connection:
        return list(connection.scalars(query))


def failure_counts(job_id: uuid.UUID) -> dict[str, int]:
    """How many items failed for each reason code, the most frequent first."""
    with connect() as connection:
        rows = connection.execute(
            select(ItemFailure.code, func.count().label("items"))
            .where(ItemFailure.job_id == job_id)
            .group_by(ItemFailure.code)
            .order_by(func.count().desc(), ItemFailure.code)
        ).all()
    return {row.code: row.items for row in rows}
