"""Which windows become jobs, decided on real Postgres with a controlled clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.settings import Schedule
from tests.integration.ledger.conftest import CountKind, CountParams
from worker.ledger.tables import Job, ScheduleWindow
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


def windows(cron: str, start: str, hours: int) -> list[datetime]:
    """Every window that a beat asking each minute finds in Berlin."""
    schedule = Schedule(kind="count", cron=cron, timezone="Europe/Berlin")
    minutes = (at(start) + timedelta(minutes=minute) for minute in range(60 * hours + 1))
    return sorted({window for minute in minutes if (window := newest_window(schedule, minute)) >= at(start)})


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        # 2026-10-25: at 01:00 UTC the clock goes from 03:00 back to 02:00
        ("30 2 * * *", "2026-10-25T00:00", ["00:30"]),
        ("0 2 * * *", "2026-10-25T00:00", ["00:00"]),
        ("0,30 2 * * *", "2026-10-25T00:00", ["00:00", "00:30"]),
        ("30 * * * *", "2026-10-25T00:00", ["00:30", "01:30", "02:30"]),
        ("*/30 2 * * *", "2026-10-25T00:00", ["00:00", "00:30", "01:00", "01:30"]),
        # 2026-03-29: at 01:00 UTC the clock goes from 02:00 on to 03:00
        ("30 2 * * *", "2026-03-29T00:00", ["01:00"]),
        ("30 * * * *", "2026-03-29T00:00", ["00:30", "01:30", "02:30"]),
        ("0 3 * * *", "2026-03-29T00:00", ["01:00"]),
    ],
)
def test_when_clocks_change_a_nightly_run_comes_once_and_an_hourly_one_every_hour(
    cron: str, start: str, expected: list[str]
) -> None:
    assert windows(cron, start, hours=3) == [at(f"{start[:10]}T{time}") for time in expected]


def test_a_doubled_hour_makes_one_job(set_environment: Callable[..., None]) -> None:
    night = {"kind": "count", "cron": "30 2 * * *", "params": {"numbers": 1}, "timezone": "Europe/Berlin"}
    set_environment(SHOPVISION_SCHEDULES=json.dumps({"night": night}))
    plan_due_jobs(at("2026-10-24T12:00"))
    for minute in range(0, 240, 10):
        plan_due_jobs(at("2026-10-25T00:00") + timedelta(minutes=minute))
        finish_jobs()
    assert keys() == ["night@2026-10-25T00:30Z"]


def noted() -> datetime:
    with connect() as connection:
        return connection.scalars(select(ScheduleWindow.window_at)).one()


def test_a_window_noted_under_a_wrong_clock_stops_nothing() -> None:
    plan_due_jobs(at("2036-03-01T12:00"))  # the battery was empty
    assert plan_due_jobs(at("2026-03-01T12:00")) == []
    assert noted() == at("2026-02-28T17:00")
    assert plan_due_jobs(at("2026-03-01T17:00")) == ["nightly@2026-03-01T17:00Z"]


def test_a_beat_whose_clock_is_a_little_late_repeats_nothing() -> None:
    plan_due_jobs(at("2026-03-01T12:00"))
    assert plan_due_jobs(at("2026-03-01T17:00:01")) == ["nightly@2026-03-01T17:00Z"]
    finish_jobs()
    assert plan_due_jobs(at("2026-03-01T16:59:57")) == []
    assert noted() == at("2026-03-01T17:00")
    assert plan_due_jobs(at("2026-03-01T17:00:05")) == []


def test_beats_go_by_the_clock_of_the_database() -> None:
    plan_due_jobs()
    with connect() as connection:
        seconds = connection.scalar(select(func.extract("epoch", func.now() - ScheduleWindow.window_at)))
    assert seconds is not None
    assert 0 <= seconds <= 24 * 3600


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "cuont", "cron": "0 2 * * *"},
        {"kind": "count", "cron": "every night"},
        {"kind": "count", "cron": "0 0 30 2 *"},
        {"kind": "count", "cron": "0 2 * * *", "timezone": "Korea/Seoul"},
        {"kind": "count", "cron": "0 2 * * *", "params": {"numbers": "many"}},
        {"kind": "count", "cron": "0 2 * * *", "params": {"bad": [13]}},
    ],
)
def test_a_schedule_that_cannot_run_does_not_keep_the_others_from_it(
    bad: dict[str, object], set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def urgent(_: CountKind, params: CountParams) -> bool:
        assert params.bad != (13,)  # whatever a kind may raise
        return False

    monkeypatch.setattr(CountKind, "urgent", urgent)
    set_environment(SHOPVISION_SCHEDULES=json.dumps({"bad": bad, **json.loads(SCHEDULES)}))
    plan_due_jobs(at("2026-03-01T12:00"))
    assert plan_due_jobs(at("2026-03-02T17:00")) == ["nightly@2026-03-02T17:00Z"]
    assert keys() == ["nightly@2026-03-02T17:00Z"]


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
        (Schedule(kind="count", cron="61 2 * * *"), "is not a cron expression"),
        (Schedule(kind="count", cron="0 0 31 2,4 *"), "never comes|is not a cron expression"),
        (Schedule(kind="count", cron="0 2 * * *", timezone="../etc/passwd"), "Unknown time zone"),
        (Schedule(kind="count", cron="0 2 * * *", timezone="Korea/Seoul"), "Unknown time zone"),
    ],
)
def test_a_wrong_schedule_is_named(schedule: Schedule, words: str) -> None:
    with pytest.raises(UserError, match=words):
        newest_window(schedule, at("2026-03-01T12:00"))
