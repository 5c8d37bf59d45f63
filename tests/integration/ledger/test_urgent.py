"""Jobs that somebody waits for: their messages go first, and what runs makes room for them."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from celery import Celery
from kombu import Consumer, Queue
from kombu.message import Message
from sqlalchemy import func, select, update

from shopvision.database import connect
from shopvision.errors import TransientError
from shopvision.settings import get_settings
from tests.integration.ledger.conftest import CountKind, CountParams, RememberingBroker, effects
from worker.app import app
from worker.broker import CeleryBroker
from worker.kinds import StepContext
from worker.ledger import jobs, leases
from worker.ledger.outbox import relay
from worker.ledger.progress import job_progress
from worker.ledger.reaper import reap
from worker.ledger.tables import Chunk, OutboxMessage
from worker.runner import MAX_TRANSIENT_ATTEMPTS, run_step

Drain = Callable[..., int]
URGENT = 3  # a job of so many numbers is urgent here


@pytest.fixture(autouse=True)
def _small_jobs_are_urgent(count_kind: CountKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountKind, "urgent", lambda kind, params: params.numbers == URGENT)


def submit(**params: object) -> uuid.UUID:
    with connect() as connection:
        return jobs.submit(connection, "count", params)


def step(broker: RememberingBroker) -> uuid.UUID:
    """Deliver one message; whose it was."""
    relay(broker, 4)
    chunk_id = broker.messages.popleft()[1]
    run_step(chunk_id, "only@worker")
    with connect() as connection:
        owner: uuid.UUID = connection.scalars(select(Chunk.job_id).where(Chunk.chunk_id == chunk_id)).one()
    return owner


def test_an_urgent_job_overtakes_a_full_queue_in_every_phase(broker_memory: RememberingBroker) -> None:
    bulk = submit(numbers=400)  # 100 chunks, of which the queue takes 4
    step(broker_memory)
    relay(broker_memory, 4)
    assert len(broker_memory.messages) == 4
    urgent = submit(numbers=URGENT)
    assert [step(broker_memory) for _ in range(4)] == [urgent, urgent, urgent, bulk]  # split, chunk, finish
    assert job_progress(urgent).state == "succeeded"
    assert job_progress(urgent).urgent
    assert job_progress(bulk).done == 4
    assert not job_progress(bulk).urgent


def test_even_urgent_messages_fill_a_queue_only_to_a_limit(broker_memory: RememberingBroker) -> None:
    for _ in range(50):
        submit(numbers=URGENT)
    submit(numbers=1)
    assert relay(broker_memory, 10)
    assert relay(broker_memory, 10)
    assert len(broker_memory.messages) == 20
    assert all(message[3] for message in broker_memory.messages)


def test_a_message_that_was_lost_is_urgent_again(broker_memory: RememberingBroker) -> None:
    submit(numbers=1)
    submit(numbers=URGENT)
    relay(broker_memory, 10)
    broker_memory.messages.clear()  # Redis was emptied
    with connect() as connection:
        connection.execute(update(Chunk).values(sent_at=func.now() - func.make_interval(0, 0, 0, 0, 1)))
    reap()
    relay(broker_memory, 10)
    assert [message[3] for message in broker_memory.messages] == [True, False]


def test_a_retry_of_an_urgent_jobs_failures_is_urgent(drain: Drain) -> None:
    job_id = submit(numbers=URGENT, bad=[1])
    drain()
    assert job_progress(jobs.retry_failed(job_id)).urgent


def claimed(job_id: uuid.UUID) -> leases.Lease:
    with connect() as connection:
        ready = connection.scalars(select(Chunk.chunk_id).where(Chunk.job_id == job_id, Chunk.state == "ready"))
        chunk_id = ready.first()
    assert chunk_id is not None
    lease = leases.claim(chunk_id, "a/1")
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("mine", "waiting", "outranked"),
    [("gpu.embed", "gpu.rank", True), ("io", "io", True), ("io", "gpu.rank", False), ("index", "io", False)],
)
def test_a_running_chunk_makes_room_for_an_urgent_one_on_its_workers(
    broker_memory: RememberingBroker, mine: str, waiting: str, outranked: bool
) -> None:
    lease = claimed(submit(numbers=8))
    with connect() as connection:
        connection.execute(update(Chunk).where(Chunk.chunk_id == lease.chunk_id).values(queue=mine))
    urgent = submit(numbers=URGENT)
    with connect() as connection:
        connection.execute(update(Chunk).where(Chunk.job_id == urgent).values(queue=waiting))
    assert not leases.heartbeat(lease).outranked  # no worker can have taken it yet
    relay(broker_memory, 10)
    assert leases.heartbeat(lease).outranked is outranked
    taken = claimed(urgent)
    assert not leases.heartbeat(lease).outranked
    assert not leases.heartbeat(taken).outranked


def test_urgent_jobs_do_not_make_room_for_each_other(broker_memory: RememberingBroker) -> None:
    lease = claimed(submit(numbers=URGENT))
    submit(numbers=URGENT)
    relay(broker_memory, 10)
    assert not leases.heartbeat(lease).outranked


def test_a_chunk_that_makes_room_goes_to_the_end_of_the_queue_and_dies_no_death(
    broker_memory: RememberingBroker, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = submit(numbers=12)
    step(broker_memory)
    relay(broker_memory, 10)
    first = broker_memory.messages[0][1]
    original = CountKind.run

    def one_at_a_time(self: CountKind, params: CountParams, keys: list[str], context: StepContext) -> object:
        result = original(self, params, keys[:1], context)
        result.remaining = keys[1:]
        return result

    with monkeypatch.context() as patch:
        patch.setattr(CountKind, "run", one_at_a_time)
        assert step(broker_memory) == bulk
    relay(broker_memory, 10)
    assert broker_memory.messages[-1][1] == first
    with connect() as connection:
        row = connection.execute(select(Chunk.deaths, Chunk.item_keys).where(Chunk.chunk_id == first)).one()
    assert tuple(row) == (0, ["1", "2", "3"])
    drain()
    assert len(effects()) == 12


def test_making_room_often_does_not_use_up_the_patience_with_a_dependency(
    broker_memory: RememberingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(numbers=1)
    step(broker_memory)
    with connect() as connection:
        connection.execute(update(Chunk).values(attempt=MAX_TRANSIENT_ATTEMPTS + 1))

    def away(*_: object) -> None:
        raise TransientError("The object store does not answer.")

    monkeypatch.setattr(CountKind, "run", away)
    for attempt in range(1, MAX_TRANSIENT_ATTEMPTS + 1):
        assert job_progress(job_id).state == "running"
        with connect() as connection:
            connection.execute(update(OutboxMessage).values(not_before=func.now()))
        step(broker_memory)
        with connect() as connection:
            assert connection.scalar(select(Chunk.postponed).where(Chunk.phase == "chunk")) in {attempt, attempt - 1}
    assert job_progress(job_id).error == "Given up after 20 attempts: The object store does not answer."


@pytest.fixture
def celery(broker: None, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """The application, pointed at this test's broker."""
    address = get_settings().broker_url
    assert address is not None
    monkeypatch.setattr(app.conf, "broker_url", address.get_secret_value())
    return app


def test_redis_hands_out_urgent_messages_first_whatever_their_queue(celery: Celery) -> None:
    broker = CeleryBroker()
    for chunk_id, queue, urgent in (
        (1, "gpu.embed", False),
        (2, "gpu.rank", False),
        (3, "gpu.embed", False),
        (4, "gpu.rank", True),
        (5, "gpu.embed", True),
        (6, "gpu.rank", True),
    ):
        broker.send("tasks.count.chunk", chunk_id, queue, urgent=urgent)
    assert (broker.depth("gpu.embed"), broker.depth("gpu.rank"), broker.depth("io")) == (3, 3, 0)
    broker.close()

    taken: list[int] = []

    def take(body: tuple[list[int], object, object], message: Message) -> None:
        taken.append(body[0][0])
        message.ack()

    with celery.connection_for_read() as connection:
        consumer = Consumer(connection, [Queue("gpu.embed"), Queue("gpu.rank")], callbacks=[take])
        consumer.qos(prefetch_count=1)
        with consumer:
            for _ in range(6):
                connection.drain_events(timeout=5)
    assert set(taken[:3]) == {4, 5, 6}
    assert taken.index(4) < taken.index(6)
    assert taken.index(1) < taken.index(3)


def test_steps_that_look_at_a_whole_job_may_take_longer(celery: Celery, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_WHOLE_TIME_LIMIT_SECONDS="5000", SHOPVISION_BROKER_URL=celery.conf.broker_url)
    broker = CeleryBroker()
    for phase in ("split", "chunk", "finish"):
        broker.send(f"tasks.count.{phase}", 1, "io", urgent=False)
    broker.close()
    limits: dict[str, object] = {}

    def take(body: object, message: Message) -> None:
        limits[message.headers["task"]] = message.headers["timelimit"][0]
        message.ack()

    with celery.connection_for_read() as connection, Consumer(connection, [Queue("io")], callbacks=[take]):
        for _ in range(3):
            connection.drain_events(timeout=5)
    assert limits == {"tasks.count.split": 5000, "tasks.count.chunk": None, "tasks.count.finish": 5000}
