"""Splitting takes minutes for a large catalogue: nothing is locked meanwhile, and it ends when it is asked to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import func, select, text

from shopvision.database import connect
from tests.integration.ledger.conftest import CountKind, CountParams, effects
from worker.kinds import StepContext
from worker.ledger import jobs, splits
from worker.ledger.leases import claim
from worker.ledger.progress import job_progress
from worker.ledger.reaper import reap
from worker.ledger.running_step import STOP_FILE_VARIABLE
from worker.ledger.tables import Chunk, JobState, OutboxMessage

Drain = Callable[..., int]
Split = Callable[[StepContext], Iterator[Any]]

OTHERS_IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'shopvision' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    """


@pytest.fixture
def set_split(count_kind: CountKind, monkeypatch: pytest.MonkeyPatch) -> Callable[[Split], uuid.UUID]:
    """Give the kind another split, and submit a job of it."""

    def use(split: Split) -> uuid.UUID:
        def call(self: CountKind, params: CountParams, context: StepContext) -> Iterator[Any]:
            return split(context)

        monkeypatch.setattr(CountKind, "split", call)
        with connect() as connection:
            return jobs.submit(connection, "count")

    return use


def ready() -> int:
    with connect() as connection:
        return int(connection.scalar(select(func.count()).where(Chunk.state == "ready")) or 0)


def the_chunk(column: Any) -> Any:
    with connect() as connection:
        return connection.scalars(select(column).where(Chunk.phase == "split")).one()


def test_nothing_is_locked_and_no_transaction_is_open_while_keys_are_read(
    set_split: Callable[[Split], uuid.UUID], drain: Drain
) -> None:
    def split(context: StepContext) -> Iterator[str]:
        yield from map(str, range(20))
        with connect() as connection:
            assert connection.scalar(text(OTHERS_IN_TRANSACTION)) == 0
            connection.execute(select(Chunk).where(Chunk.job_id == context.job_id).with_for_update(nowait=True))
        yield "20"

    job_id = set_split(split)
    drain()
    assert (job_progress(job_id).state, job_progress(job_id).total, len(effects())) == ("succeeded", 21, 21)


def for_ever(context: StepContext) -> Iterator[str]:
    number = 0
    while True:
        yield str(number)
        number += 1
        time.sleep(0.001)


def test_a_split_ends_soon_after_its_job_was_cancelled_and_begins_anew_when_resumed(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_LEASE_SECONDS="1")

    def cancelled_soon(context: StepContext) -> Iterator[str]:
        assert jobs.cancel(context.job_id) is JobState.RUNNING
        return for_ever(context)

    job_id = set_split(cancelled_soon)
    drain()  # would not end
    assert (job_progress(job_id).state, job_progress(job_id).total, ready()) == ("cancelled", None, 0)
    assert the_chunk(Chunk.deaths) == 0
    set_split(lambda _: iter("12345"))
    jobs.resume(job_id)
    drain()
    assert (job_progress(job_id).state, job_progress(job_id).total) == ("succeeded", 5)


def test_a_split_that_asks_by_itself_and_ends_early_is_not_taken_for_whole(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that shuts down hands the split to another one."""
    monkeypatch.setenv(STOP_FILE_VARIABLE, str(tmp_path / "stop"))

    def split(context: StepContext) -> Iterator[str]:
        for key in "1234567":
            if context.should_stop():
                return
            yield key
            if key == "2":
                (tmp_path / "stop").touch(exist_ok=True)

    job_id = set_split(split)
    assert drain(limit=1) == 1
    assert (the_chunk(Chunk.state), the_chunk(Chunk.deaths), job_progress(job_id).total) == ("ready", 0, None)
    monkeypatch.delenv(STOP_FILE_VARIABLE)
    drain()
    assert (job_progress(job_id).state, sorted(effects())) == ("succeeded", list("1234567"))


def test_a_whole_split_is_committed_although_its_worker_shuts_down(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOP_FILE_VARIABLE, str(tmp_path / "stop"))

    def split(_: StepContext) -> Iterator[str]:
        yield from "123"
        (tmp_path / "stop").touch()

    job_id = set_split(split)
    drain(limit=1)
    assert (the_chunk(Chunk.state), job_progress(job_id).total) == ("done", 3)


def test_chunks_that_came_after_the_cancel_do_not_stay_ready(
    set_split: Callable[[Split], uuid.UUID], drain: Drain
) -> None:
    """The last moment: cancelled after the last key, before the heartbeat could tell."""

    def split(context: StepContext) -> Iterator[str]:
        yield from map(str, range(40))
        jobs.cancel(context.job_id)

    job_id = set_split(split)
    drain()
    assert (job_progress(job_id).state, ready(), effects()) == ("cancelled", 0, [])
    with connect() as connection:
        unsent = connection.scalar(
            select(func.count()).select_from(OutboxMessage).where(OutboxMessage.sent_at.is_(None))
        )
    assert unsent == 0
    jobs.resume(job_id)
    drain()
    assert (job_progress(job_id).state, len(effects())) == ("succeeded", 40)


def test_who_lost_the_lease_while_splitting_ends_and_changes_nothing(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_LEASE_SECONDS="1")

    def split(context: StepContext) -> Iterator[str]:
        with connect() as connection:
            connection.execute(text("UPDATE chunks SET lease_until = now()"))
        reap()
        assert claim(the_chunk(Chunk.chunk_id), "another@worker/1") is not None
        return for_ever(context)

    job_id = set_split(split)
    assert drain(limit=1) == 1
    assert (the_chunk(Chunk.state), the_chunk(Chunk.worker)) == ("leased", "another@worker/1")
    assert job_progress(job_id).total is None


def test_splitting_and_finishing_have_no_time_limit_of_a_chunk_and_make_no_room(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, set_environment: Callable[..., None]
) -> None:
    """They would begin anew each time, and a large job would never come to its chunks."""
    set_environment(SHOPVISION_SOFT_TIME_LIMIT_SECONDS="1")

    def split(context: StepContext) -> Iterator[str]:
        time.sleep(1.1)
        assert not context.should_stop()
        yield "1"

    job_id = set_split(split)
    drain()
    assert job_progress(job_id).state == "succeeded"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("x" * 20_000, "has 20,000 characters, at most 500"),
        ("a\x00", "contains a NUL"),
        ("\ud800", "no valid Unicode"),
        (7, "is no text"),
    ],
)
def test_a_key_that_cannot_be_stored_fails_the_job_in_one_short_line(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, key: Any, words: str
) -> None:
    job_id = set_split(lambda _: iter(["1", key]))
    drain()
    progress = job_progress(job_id)
    assert progress.state == "failed"
    assert progress.error is not None
    assert words in progress.error
    assert len(progress.error) < 200


def test_many_keys_lie_on_disk(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "IN_MEMORY_BYTES", 50)
    job_id = set_split(lambda _: map(str, range(100)))
    drain()
    assert (job_progress(job_id).done, len(effects())) == (100, 100)


def test_a_full_disk_is_said_and_the_job_can_be_resumed(
    set_split: Callable[[Split], uuid.UUID], drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> IO[bytes]:
        return Path("/dev/full").open("wb", buffering=0)

    with monkeypatch.context() as patch:
        patch.setattr(splits.tempfile, "SpooledTemporaryFile", full)
        job_id = set_split(lambda _: iter("123"))
        drain()
    progress = job_progress(job_id)
    assert progress.state == "failed"
    assert "is full: free space, or set TMPDIR to another disk" in str(progress.error)
    set_split(lambda _: iter("123"))
    jobs.resume(job_id)
    drain()
    assert job_progress(job_id).state == "succeeded"
