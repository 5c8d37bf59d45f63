"""Recurring jobs: which windows are due, decided by Postgres, so that any number of beats may ask at any time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from croniter import CroniterError, croniter
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.settings import Schedule, get_settings
from worker.ledger.jobs import submit
from worker.ledger.tables import Job, JobState, ScheduleWindow

log = structlog.get_logger(__name__)


def newest_window(schedule: Schedule, now: datetime) -> datetime:
    """The last time at or before ``now`` that the schedule's cron expression matches, in UTC.

    Raises:
        UserError: the cron expression or the time zone cannot be read.
    """
    try:
        local = now.astimezone(ZoneInfo(schedule.timezone))
        if croniter.match(schedule.cron, local.replace(second=0, microsecond=0)):
            return local.replace(second=0, microsecond=0).astimezone(UTC)
        previous: datetime = croniter(schedule.cron, local).get_prev(datetime)
    except (CroniterError, ValueError) as error:
        raise UserError(f"Schedule {schedule.cron!r} is not a cron expression: {error}.") from None
    except ZoneInfoNotFoundError:
        raise UserError(f"Unknown time zone {schedule.timezone!r}; use a name like Asia/Seoul.") from None
    return previous.astimezone(UTC)


def plan_due_jobs(now: datetime | None = None) -> list[str]:
    """Submit one job for each schedule whose newest window has none yet; returns the keys submitted.

    However many windows were missed, only the newest is caught up. A schedule seen for the first time starts with its
    next window. While the previous job of a schedule still runs, its next window waits.
    """
    submitted = []
    for name, schedule in get_settings().schedules.items():
        window = newest_window(schedule, now or datetime.now(UTC))
        with connect() as connection:
            connection.execute(
                upsert(ScheduleWindow)
                .values(name=name, window_at=window)
                .on_conflict_do_nothing(index_elements=["name"])
            )
            # The row lock makes a second beat wait here, and then find the window taken.
            known = connection.scalar(
                select(ScheduleWindow.window_at).where(ScheduleWindow.name == name).with_for_update()
            )
            if known is None or window <= known or _still_running(connection, name):
                continue
            key = f"{name}@{window:%Y-%m-%dT%H:%MZ}"
            job_id = submit(connection, schedule.kind, schedule.params, key=key, source=f"schedule:{name}")
            connection.execute(update(ScheduleWindow).where(ScheduleWindow.name == name).values(window_at=window))
        log.info("scheduled_job_submitted", schedule=name, window=window.isoformat(), job_id=str(job_id))
        submitted.append(key)
    return submitted


def _still_running(connection: Connection, name: str) -> bool:
    count = connection.scalar(
        select(func.count()).where(Job.source == f"schedule:{name}", Job.state == JobState.RUNNING)
    )
    return bool(count)
