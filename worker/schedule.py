"""Recurring jobs: which windows are due, decided by Postgres, so that any number of beats may ask at any time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shopvision.database import connect, is_passing
from shopvision.errors import UserError
from shopvision.settings import Schedule, get_settings
from worker.ledger.jobs import submit
from worker.ledger.tables import Job, JobState, ScheduleWindow

log = structlog.get_logger(__name__)

CLOCK_TOLERANCE = timedelta(hours=1)  # a window further ahead was noted under a wrong clock


def newest_window(schedule: Schedule, now: datetime) -> datetime:
    """The last time at or before ``now`` that the schedule's cron expression matches, in UTC.

    Where clocks change it is as in Debian's cron: a schedule that names minute and hour runs once in the doubled hour,
    at its first occurrence, and right after an hour that was skipped; one with ``*`` in either follows real time.

    Raises:
        UserError: the cron expression or the time zone cannot be read, or no time ever matches.
    """
    try:
        # A microsecond later, because the iterator begins before the time it is given.
        local = now.astimezone(ZoneInfo(schedule.timezone)).replace(microsecond=1)
        window = next(CronSim(schedule.cron, local, reverse=True), None)
    except CronSimError as error:
        raise UserError(f"Schedule {schedule.cron!r} is not a cron expression: {error}.") from None
    except (ZoneInfoNotFoundError, ValueError):
        raise UserError(f"Unknown time zone {schedule.timezone!r}; use a name like Asia/Seoul.") from None
    if window is None:
        raise UserError(f"Schedule {schedule.cron!r} never comes: no date matches it.")
    return window.astimezone(UTC)


def plan_due_jobs(now: datetime | None = None) -> list[str]:
    """Submit one job for each schedule whose newest window has none yet; returns the keys submitted.

    However many windows were missed, only the newest is caught up. A schedule seen for the first time starts with its
    next window. While the previous job of a schedule still runs, its next window waits. A schedule that cannot be
    carried out is logged, and the others go on.

    Args:
        now: by default the database's clock, which all beats share.
    """
    submitted = []
    for name, schedule in get_settings().schedules.items():
        try:
            key = _plan(name, schedule, now)
        except UserError as error:
            log.error("schedule_refused", schedule=name, error=str(error))  # noqa: TRY400 - a mistake of the user's
        except Exception as error:
            if is_passing(error):  # for all of them
                raise
            log.exception("schedule_failed", schedule=name)
        else:
            submitted += [key] if key else []
    return submitted


def _plan(name: str, schedule: Schedule, now: datetime | None) -> str | None:
    with connect() as connection:
        now = now or connection.scalars(select(func.now())).one()
        window = newest_window(schedule, now)
        connection.execute(
            upsert(ScheduleWindow).values(name=name, window_at=window).on_conflict_do_nothing(index_elements=["name"])
        )
        # The row lock makes a second beat wait here, and then find the window taken.
        known = connection.scalars(
            select(ScheduleWindow.window_at).where(ScheduleWindow.name == name).with_for_update()
        ).one()
        if known > now + CLOCK_TOLERANCE:
            log.warning("schedule_window_in_the_future", schedule=name, noted=known.isoformat())
            _note(connection, name, window)
            return None
        if window <= known or _still_running(connection, name):
            return None
        key = f"{name}@{window:%Y-%m-%dT%H:%MZ}"
        job_id = submit(connection, schedule.kind, schedule.params, key=key, source=f"schedule:{name}")
        _note(connection, name, window)
    log.info("scheduled_job_submitted", schedule=name, window=window.isoformat(), job_id=str(job_id))
    return key


def _note(connection: Connection, name: str, window: datetime) -> None:
    connection.execute(update(ScheduleWindow).where(ScheduleWindow.name == name).values(window_at=window))


def _still_running(connection: Connection, name: str) -> bool:
    count = connection.scalar(
        select(func.count()).where(Job.source == f"schedule:{name}", Job.state == JobState.RUNNING)
    )
    return bool(count)
