"""Jobs from submission to their end, on real Postgres, with the runner called directly."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import func, select, text, update

from shopvision.database import connect, transaction
from shopvision.errors import JobError, TransientError, UserError
from tests.integration.ledger.conftest import CountKind, CountParams, RememberingBroker, effects
from worker.kinds import StepContext
from worker.ledger import commits, jobs, leases, splits
from worker.ledger.leases import LeaseLostError
from worker.ledger.outbox import relay
from worker.ledger.progress import failure_counts, find_job, job_progress, list_failures, recent_jobs
from worker.ledger.reaper import reap
from worker.ledger.tables import Chunk, Job, OutboxMessage
from worker.stack.embedded import PostgresServer

pytestmark = pytest.mark.usefixtures("count_kind")
Drain = Callable[..., int]


def submit(**params: object) -> uuid.UUID:
    with connect() as connection:
        return jobs.submit(connection, "count", params)


def open_chunks(job_id: uuid.UUID, state: str = "ready") -> list[int]:
    with connect() as connection:
        return list(
            connection.scalars(
                select(Chunk.chunk_id).where(Chunk.job_id == job_id, Chunk.state == state).order_by(Chunk.chunk_id)
            )
        )


def expire(chunk_id: int) -> None:
    with connect() as connection:
        connection.execute(update(Chunk).where(Chunk.chunk_id == chunk_id).values(lease_until=func.now()))


def split(job_id: uuid.UUID, drain: Drain) -> list[int]:
    assert drain(limit=1) == 1
    return open_chunks(job_id)


def spooled(keys: list[str]) -> splits.SpooledKeys:
    spooled = splits.SpooledKeys(io.BytesIO(), CountKind.chunk_size)
    spooled.append(keys)
    return spooled


def test_a_job_runs_through_split_chunks_and_finish(drain: Drain) -> None:
    job_id = submit(numbers=10, bad=[3, 7])
    assert drain() == 1 + 3 + 1  # split; chunks of 4, 4 and 2; finish
    progress = job_progress(job_id)
    assert (progress.state, progress.total, progress.done, progress.failed) == ("succeeded", 10, 8, 2)
    assert progress.counters == {"sum": 45 - 10}
    assert progress.result == {"effects": 8}
    assert effects() == ["0", "1", "2", "4", "5", "6", "8", "9"]
    assert failure_counts(job_id) == {"bad_number": 2}
    assert [failure["item_key"] for failure in list_failures(job_id, limit=10)] == ["3", "7"]


def test_an_empty_job_succeeds(drain: Drain) -> None:
    job_id = submit(numbers=0)
    drain()
    assert (job_progress(job_id).state, job_progress(job_id).total) == ("succeeded", 0)


def test_submit_belongs_to_the_callers_transaction(drain: Drain) -> None:
    def change_of_mind() -> None:
        with transaction() as session:
            jobs.submit(session, "count", {"numbers": 1})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_of_mind()
    assert recent_jobs() == []
    assert drain() == 0


def test_the_same_key_gives_the_same_job() -> None:
    with connect() as connection:
        first = jobs.submit(connection, "count", {"numbers": 1}, key="nightly")
    with connect() as connection:
        assert jobs.submit(connection, "count", {"numbers": 99}, key="nightly") == first
        assert connection.scalar(select(func.count()).select_from(Chunk)) == 1


@pytest.mark.parametrize(
    ("kind", "params", "words"),
    [
        ("cuont", {}, "Unknown job kind 'cuont'. There are: count"),
        ("count", {"number": 3}, "count: number: .*It takes: numbers, bad"),
        ("count", {"numbers": "many"}, "count: numbers: .*integer"),
    ],
)
def test_a_wrong_submission_is_refused_in_one_line(kind: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused, connect() as connection:
        jobs.submit(connection, kind, params)
    assert "\n" not in str(refused.value)
    assert recent_jobs() == []


def test_a_chunk_delivered_three_times_has_one_effect(drain: Drain, broker_memory: RememberingBroker) -> None:
    job_id = submit(numbers=4)
    split(job_id, drain)
    relay(broker_memory, 64)
    broker_memory.messages.extend(list(broker_memory.messages) * 2)
    drain()
    assert effects() == ["0", "1", "2", "3"]
    assert job_progress(job_id).state == "succeeded"


def test_two_workers_cannot_hold_one_chunk(drain: Drain) -> None:
    [chunk_id] = split(submit(numbers=4), drain)
    assert leases.claim(chunk_id, "a/1") is not None
    assert leases.claim(chunk_id, "b/2") is None


def test_only_the_current_attempt_may_commit(drain: Drain, count_kind: CountKind) -> None:
    [chunk_id] = split(submit(numbers=4), drain)
    slow = leases.claim(chunk_id, "slow/1")
    expire(chunk_id)
    reap()
    quick = leases.claim(chunk_id, "quick/2")
    assert slow is not None
    assert quick is not None
    assert quick.attempt == slow.attempt + 1
    params = count_kind.params()
    assert not leases.heartbeat(slow).alive
    commits.commit(quick, count_kind.run(params, quick.item_keys, None))  # type: ignore[arg-type,type-var]
    with pytest.raises(LeaseLostError):
        commits.commit(slow, count_kind.run(params, slow.item_keys, None))  # type: ignore[arg-type,type-var]
    assert effects() == ["0", "1", "2", "3"]
    assert job_progress(quick.job_id).done == 4


def test_without_the_fence_a_late_attempt_has_a_double_effect(
    drain: Drain, count_kind: CountKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that the test above can fail: the same story, told without the attempt number."""
    [chunk_id] = split(submit(numbers=4), drain)
    slow = leases.claim(chunk_id, "slow/1")
    expire(chunk_id)
    reap()
    quick = leases.claim(chunk_id, "quick/2")
    assert slow is not None
    assert quick is not None
    monkeypatch.setattr(leases, "mine", lambda lease: [Chunk.chunk_id == lease.chunk_id])
    for lease in (quick, slow):
        commits.commit(lease, count_kind.run(count_kind.params(), lease.item_keys, None))  # type: ignore[arg-type,type-var]
    assert effects() == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_a_stale_split_adds_no_chunks(drain: Drain) -> None:
    job_id = submit(numbers=8)
    [chunk_id] = open_chunks(job_id)
    stale = leases.claim(chunk_id, "slow/1")
    expire(chunk_id)
    reap()
    drain()
    assert stale is not None
    with pytest.raises(LeaseLostError):
        splits.commit_split(stale, {}, spooled(["0", "1"]), "io")
    assert job_progress(job_id).total == 8
    assert job_progress(job_id).state == "succeeded"


def test_a_poison_item_is_isolated_and_the_others_succeed(
    drain: Drain, count_kind: CountKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CountKind.run

    def deadly(self: CountKind, params: object, keys: list[str], context: object) -> object:
        if "2" in keys:
            raise SystemError("the process would have died here")
        return original(self, params, keys, context)  # type: ignore[arg-type]

    monkeypatch.setattr(CountKind, "run", deadly)
    job_id = submit(numbers=10)
    drain()
    progress = job_progress(job_id)
    assert (progress.state, progress.done, progress.failed) == ("succeeded", 9, 1)
    assert effects() == ["0", "1", "3", "4", "5", "6", "7", "8", "9"]
    [failure] = list_failures(job_id, limit=10)
    assert (failure["item_key"], failure["code"]) == ("2", "poison")
    with connect() as connection:
        divided = connection.scalars(
            select(Chunk.deaths).where(Chunk.state == "divided").order_by(Chunk.chunk_id)
        ).all()
    assert divided == [3, 1]  # the first chunk has three chances, its half is cut at once


def test_a_job_whose_every_item_fails_has_failed(drain: Drain) -> None:
    job_id = submit(numbers=2, bad=[0, 1])
    drain()
    progress = job_progress(job_id)
    assert progress.state == "failed"
    assert progress.error is not None
    assert "Every one of the 2 items failed, most of them with bad_number: 0 is bad" in progress.error


def test_retry_failed_takes_exactly_the_failed_items(drain: Drain) -> None:
    first = submit(numbers=10, bad=[3, 7])
    drain()
    second = jobs.retry_failed(first)
    drain()
    progress = job_progress(second)
    assert (progress.total, progress.failed, progress.retry_of) == (2, 2, first)
    with pytest.raises(UserError, match="no failed items"):
        jobs.retry_failed(submit_and_finish(drain))


def submit_and_finish(drain: Drain) -> uuid.UUID:
    job_id = submit(numbers=1)
    drain()
    return job_id


def test_cancel_before_work_is_immediate_and_resume_completes(drain: Drain) -> None:
    job_id = submit(numbers=10)
    split(job_id, drain)
    assert jobs.cancel(job_id) == "cancelled"
    drain()
    assert effects() == []
    jobs.resume(job_id)
    drain()
    assert len(effects()) == 10
    assert job_progress(job_id).state == "succeeded"
    with pytest.raises(UserError, match="has already succeeded"):
        jobs.cancel(job_id)
    with pytest.raises(UserError, match="only a cancelled or failed job"):
        jobs.resume(job_id)


def test_a_cancelled_chunk_keeps_what_it_did_and_hands_back_the_rest(drain: Drain, count_kind: CountKind) -> None:
    job_id = submit(numbers=4)
    [chunk_id] = split(job_id, drain)
    lease = leases.claim(chunk_id, "a/1")
    assert lease is not None
    assert jobs.cancel(job_id) == "running"  # somebody still works on it
    assert leases.heartbeat(lease).cancelled
    partial = count_kind.run(count_kind.params(), lease.item_keys[:1], None)  # type: ignore[arg-type,type-var]
    partial.remaining = lease.item_keys[1:]
    commits.commit(lease, partial)
    assert job_progress(job_id).state == "cancelled"
    assert effects() == ["0"]
    jobs.resume(job_id)
    drain()
    assert effects() == ["0", "1", "2", "3"]
    assert job_progress(job_id).done == 4


def test_the_rest_of_a_stopped_chunk_goes_back_to_the_queue(drain: Drain, count_kind: CountKind) -> None:
    job_id = submit(numbers=4)
    [chunk_id] = split(job_id, drain)
    lease = leases.claim(chunk_id, "a/1")
    assert lease is not None
    partial = count_kind.run(count_kind.params(), lease.item_keys[:3], None)  # type: ignore[arg-type,type-var]
    partial.remaining = lease.item_keys[3:]
    commits.commit(lease, partial)
    drain()
    assert effects() == ["0", "1", "2", "3"]
    assert job_progress(job_id).state == "succeeded"


def test_a_job_error_ends_the_job_and_resume_takes_it_up(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise JobError("The weights are missing: import them.")

    with monkeypatch.context() as patch:
        patch.setattr(CountKind, "run", refuse)
        job_id = submit(numbers=10)
        drain()
        assert (job_progress(job_id).state, job_progress(job_id).error) == (
            "failed",
            "The weights are missing: import them.",
        )
    jobs.resume(job_id)
    drain()
    assert job_progress(job_id).state == "succeeded"
    assert len(effects()) == 10


def test_a_transient_error_postpones_the_chunk(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise TransientError("The object store does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(CountKind, "run", away)
        job_id = submit(numbers=4)
        assert drain() == 2
    assert job_progress(job_id).state == "running"
    with connect() as connection:
        row = connection.execute(
            select(Chunk.state, Chunk.deaths, Chunk.error, Chunk.not_before > func.now()).where(Chunk.phase == "chunk")
        ).one()
        assert tuple(row) == ("ready", 0, "The object store does not answer.", True)
        assert drain() == 0  # not before its time
        connection.execute(update(OutboxMessage).values(not_before=func.now()))
        connection.commit()
    drain()
    assert job_progress(job_id).state == "succeeded"


def test_lost_messages_are_sent_again(drain: Drain, broker_memory: RememberingBroker) -> None:
    job_id = submit(numbers=10)
    split(job_id, drain)
    relay(broker_memory, 64)
    assert len(broker_memory.messages) == 3
    broker_memory.messages.clear()  # Redis was emptied
    reap()
    assert drain() == 0  # they may still be on their way
    with connect() as connection:
        connection.execute(update(Chunk).values(sent_at=text("now() - interval '1 hour'")))
    reap()
    reap()  # one message each, however often the reaper looks
    assert drain() == 4
    assert job_progress(job_id).state == "succeeded"


def test_the_relay_fills_a_queue_only_to_its_limit(drain: Drain, broker_memory: RememberingBroker) -> None:
    job_id = submit(numbers=40)
    split(job_id, drain)
    assert relay(broker_memory, 3)
    assert len(broker_memory.messages) == 3
    assert relay(broker_memory, 3)
    assert len(broker_memory.messages) == 3
    drain()
    assert job_progress(job_id).done == 40


def test_a_broken_broker_loses_nothing(drain: Drain, broker_memory: RememberingBroker) -> None:
    job_id = submit(numbers=4)

    class Broken(RememberingBroker):
        def send(self, task: str, chunk_id: int, queue: str, *, urgent: bool) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        relay(Broken(), 64)
    drain()
    assert job_progress(job_id).state == "succeeded"


def test_jobs_are_found_by_the_start_of_their_id() -> None:
    job_id = submit(numbers=1)
    assert find_job(str(job_id)[:8]) == job_id
    for wrong in ("ffffffff-0000", "%", ""):
        with pytest.raises(UserError, match="There is no job"):
            find_job(wrong)
    with pytest.raises(UserError, match="There is no job"):
        jobs.cancel(uuid.uuid4())


def test_only_a_new_message_wakes_the_relay(postgres_server: PostgresServer, broker_memory: RememberingBroker) -> None:
    with psycopg.connect(postgres_server.url, autocommit=True) as listener:
        listener.execute("LISTEN shopvision_outbox")
        reap()
        relay(broker_memory, 64)
        assert list(listener.notifies(timeout=0.3)) == []
        submit(numbers=1)
        assert len(list(listener.notifies(timeout=5, stop_after=1))) == 1


def test_the_outbox_keeps_one_unsent_message_per_chunk() -> None:
    job_id = submit(numbers=1)
    with connect() as connection:
        jobs.enqueue_chunks(connection, Chunk.job_id == job_id)
        assert connection.scalar(select(func.count()).select_from(OutboxMessage)) == 1
        assert connection.scalar(select(Job.chunks_left)) == 1


def test_a_kind_may_look_again_once_its_first_round_is_done(
    count_kind: CountKind, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second round's items depend on what the first one wrote; counters and totals go on."""

    def split(params: CountParams, context: StepContext) -> list[str]:
        return ["1", "2", "3"] if context.round == 1 else [str(10 + int(key)) for key in effects()]

    monkeypatch.setattr(CountKind, "rounds", 2)
    monkeypatch.setattr(count_kind, "split", split)
    job_id = submit(bad=[2])
    assert drain() == 2 + 2 + 1
    progress = job_progress(job_id)
    assert (progress.state, progress.total, progress.done, progress.failed) == ("succeeded", 5, 4, 1)
    assert progress.counters == {"sum": 1 + 3 + 11 + 13}
    assert effects() == ["1", "3", "11", "13"]
    retry_id = jobs.retry_failed(job_id)
    assert drain() == 1 + 1 + 1  # what failed, and no second look
    assert job_progress(retry_id).total == 1


def test_a_cancelled_first_round_goes_on_to_the_second_when_resumed(
    count_kind: CountKind, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountKind, "rounds", 2)
    monkeypatch.setattr(count_kind, "split", lambda params, context: [str(10 * context.round)])
    job_id = submit()
    assert len(split(job_id, drain)) == 1
    jobs.cancel(job_id)
    drain()
    assert effects() == []
    jobs.resume(job_id)
    drain()
    assert (job_progress(job_id).state, effects()) == ("succeeded", ["10", "20"])
