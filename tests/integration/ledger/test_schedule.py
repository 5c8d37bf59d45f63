"""Which windows become jobs, decided on real Postgres with a controlled clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.settings import Schedule
from worker.ledger.tables import Job
from worker.schedule import newest_window, plan_due_jobs

SCHEDULES = json.dumps(
    {"nightly": {"kind": "count", "cron": "0 2 * * *", "params": {"numbers": 1}, "timezone": "Asia/Seoul"}}
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def _schedules(count_kind: object, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_SCHEDULES=SCHEDULES)


def finish_jobs() -> None:
    with connect() as connection:
        connection.execute(update(Job).values(state="succeeded", finished_at=func.now()))


def keys() -> list[str]:
    with connect() as connection:
        return list(connection.scalars(select(Job.idempotency_key).order_by(Job.created_at)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "window"),
    [
        ("2026-03-01T16:59:59", "2026-02-28T17:00"),  # 01:59:59 in Seoul
        ("2026-03-01T17:00:00", "2026-03-01T17:00"),
        ("2026-03-02T16:00:00", "2026-03-01T17:00"),
    ],
)
def test_windows_follow_the_schedules_own_time_zone(now: str, window: str) -> None:
    schedule = Schedule(kind="count", cron="0 2 * * *", timezone="Asia/Seoul")
    assert newest_window(schedule, at(now)) == at(window)


def test_one_job_per_window_however_often_beat_asks() -> None:
    assert plan_due_jobs(at("2026-03-01T12:00")) == []  # first seen: starts with its next window
    assert plan_due_jobs(at("2026-03-01T17:00:10")) == ["nightly@2026-03-01T17:00Z"]
    assert plan_due_jobs(at("2026-03-01T17:00:40")) == []
    finish_jobs()
    assert plan_due_jobs(at("2026-03-02T16:59")) == []
    assert keys() == ["nightly@2026-03-01T17:00Z"]


def test_missed_windows_are_caught_up_once() -> None:
    plan_due_jobs(at("2026-03-01T12:00"))
    assert plan_due_jobs(at("2026-03-05T03:00")) == ["nightly@2026-03-04T17:00Z"]
    finish_jobs()
    assert plan_due_jobs(at("2026-03-05T04:00")) == []


def test_a_window_waits_for_the_job_before_it() -> None:
    plan_due_jobs(at("2026-03-01T12:00"))
    plan_due_jobs(at("2026-03-01T17:00"))
    assert plan_due_jobs(at("2026-03-02T17:00")) == []
    finish_jobs()
    assert plan_due_jobs(at("2026-03-02T18:00")) == ["nightly@2026-03-02T17:00Z"]


def test_two_beats_at_once_make_one_job() -> None:
    plan_due_jobs(at("2026-03-01T12:00"))
    barrier = threading.Barrier(4)

    def beat() -> None:
        barrier.wait()
        plan_due_jobs(at("2026-03-01T17:00"))

    threads = [threading.Thread(target=beat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys() == ["nightly@2026-03-01T17:00Z"]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(kind="count", cron="every night"), "is not a cron expression"),
        (Schedule(kind="count", cron="0 2 * * *", timezone="Korea/Seoul"), "Unknown time zone"),
    ],
)
def test_a_wrong_schedule_is_named(schedule: Schedule, words: str) -> None:
    with pytest.raises(UserError, match=words):
        newest_window(schedule, at("2026-03-01T12:00"))
