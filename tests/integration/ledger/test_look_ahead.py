"""A process takes the next chunk of its job ahead, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from shopvision.database import connect
from shopvision.errors import TransientError
from tests.integration.ledger.conftest import CountKind, CountParams, RememberingBroker, effects
from worker.kinds import ChunkResult, StepContext
from worker.ledger import commits
from worker.ledger.deaths import record_process_death
from worker.ledger.jobs import submit
from worker.ledger.leases import claim, claim_next
from worker.ledger.outbox import relay
from worker.ledger.tables import Chunk, ChunkState, Job
from worker.runner import run_step

Drain = Callable[..., int]
SIZE = CountKind.chunk_size


class Ahead:
    """What a chunk began for the next one."""

    def __init__(self, keys: list[str]) -> None:
        self.keys, self.closed = keys, 0

    def close(self) -> None:
        self.closed += 1


class Looking:
    """The kind of numbers, looking ahead in each chunk; ``before`` runs at the end of each."""

    def __init__(self) -> None:
        self.begun: list[Ahead] = []
        self.found: list[tuple[list[str], Any]] = []
        self.before: Callable[[list[str]], None] = lambda keys: None

    def run(self, kind: CountKind, params: CountParams, keys: list[str], context: StepContext) -> ChunkResult:
        self.found.append((keys, context.begun))
        following = context.next_keys()
        assert context.next_keys() == following  # asked again it takes no other
        begun = None if following is None else Ahead(following)
        if begun is not None:
            self.begun.append(begun)
        try:
            self.before(keys)
        except BaseException:
            if begun is not None:
                begun.close()
            raise
        result = COUNT(kind, params, keys, context)
        result.begun = begun
        return result


COUNT = CountKind.run


@pytest.fixture
def looking(count_kind: CountKind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looking]:
    looking = Looking()

    def run(kind: CountKind, params: CountParams, keys: list[str], context: StepContext) -> ChunkResult:
        return looking.run(kind, params, keys, context)

    monkeypatch.setattr(CountKind, "run", run)
    yield looking
    assert all(one.closed for one in looking.begun)


def start(numbers: int, drain: Drain) -> None:
    """A job whose chunks are ready."""
    with connect() as connection:
        submit(connection, "count", {"numbers": numbers}, source="test")
    drain(1)


def states() -> dict[str, int]:
    with connect() as connection:
        rows = connection.execute(
            select(Chunk.state, func.count()).where(Chunk.phase == "chunk").group_by(Chunk.state)
        ).all()
    return dict(rows)  # type: ignore[arg-type]


def test_every_item_once(looking: Looking, drain: Drain) -> None:
    start(numbers=10 * SIZE, drain=drain)
    drain()
    assert effects() == [str(number) for number in range(10 * SIZE)]
    assert states() == {ChunkState.DONE: 10}
    begun_for = {tuple(keys): begun for keys, begun in looking.found if begun is not None}
    assert begun_for
    assert all(begun.keys == list(keys) for keys, begun in begun_for.items())
    # One message brings a chunk and those after it, as long as others could not work on them.
    with connect() as connection:
        assert connection.scalar(select(Job.state)) == "succeeded"


def test_one_message_is_enough_for_many_chunks(
    looking: Looking, drain: Drain, broker_memory: RememberingBroker
) -> None:
    start(numbers=10 * SIZE, drain=drain)
    relay(broker_memory, 64)
    run_step(broker_memory.messages.popleft()[1], "test@here")
    assert states() == {ChunkState.DONE: 9, ChunkState.READY: 1}  # the last is left to whoever is free
    drain()
    assert states() == {ChunkState.DONE: 10}
    assert len(effects()) == 10 * SIZE


def test_others_do_not_wait(looking: Looking, drain: Drain, broker_memory: RememberingBroker) -> None:
    start(numbers=10 * SIZE, drain=drain)
    start(numbers=10 * SIZE, drain=drain)
    relay(broker_memory, 64)
    run_step(broker_memory.messages.popleft()[1], "test@here")
    assert not looking.begun
    assert states() == {ChunkState.DONE: 1, ChunkState.READY: 19} or ChunkState.LEASED not in states()


def test_one_that_died_is_looked_at_alone(looking: Looking, drain: Drain, broker_memory: RememberingBroker) -> None:
    start(numbers=10 * SIZE, drain=drain)
    relay(broker_memory, 64)
    first = broker_memory.messages[0][1]
    lease = claim(first, "test@here/1")
    assert lease is not None
    following = claim_next(lease, "test@here/1")
    assert following is not None
    record_process_death(first, "it died", worker="elsewhere@there")
    assert states()[ChunkState.LEASED] == 2
    record_process_death(first, "it died", worker="test@here")
    with connect() as connection:
        died = connection.scalars(select(Chunk.chunk_id).where(Chunk.deaths == 1).order_by(Chunk.chunk_id)).all()
    assert died == sorted([first, following.chunk_id])  # either may have been what killed the process
    again = claim(first, "test@here/2")
    assert again is not None
    assert claim_next(again, "test@here/2") is None
    other = next(message[1] for message in broker_memory.messages if message[1] not in died)
    lease = claim(other, "test@here/3")
    assert lease is not None
    taken = claim_next(lease, "test@here/3")
    assert taken is not None
    assert taken.chunk_id not in died


@pytest.mark.parametrize("what", ["away", "commit", "cancelled"])
def test_handed_back(
    what: str, looking: Looking, drain: Drain, broker_memory: RememberingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(numbers=10 * SIZE, drain=drain)
    relay(broker_memory, 64)

    def trouble(_: list[str]) -> None:
        looking.before = lambda keys: None
        if what == "away":
            raise TransientError("The store is away.")
        with connect() as connection:
            connection.execute(update(Job).values(cancel_requested_at=func.now()))

    if what == "commit":
        commit = commits.commit

        def refuse(*_: object) -> None:
            monkeypatch.setattr(commits, "commit", commit)
            raise RuntimeError("no commit")

        monkeypatch.setattr(commits, "commit", refuse)
    else:
        looking.before = trouble
    run_step(broker_memory.messages.popleft()[1], "test@here")
    assert ChunkState.LEASED not in states()
    if what == "cancelled":
        # The chunk that was taken ahead may be done before its first heartbeat tells it; no other is begun.
        drain()
        with connect() as connection:
            assert connection.scalar(select(Job.state)) == "cancelled"
        assert len(effects()) in {SIZE, 2 * SIZE}
        return
    assert looking.begun[0].closed
    assert effects() == []
    with connect() as connection:
        connection.execute(text("UPDATE outbox SET not_before = now() WHERE sent_at IS NULL"))
        connection.execute(text("UPDATE chunks SET not_before = now()"))
    drain()
    assert effects() == [str(number) for number in range(10 * SIZE)]


def test_an_error_beside_the_attempt_keeps_nothing(
    looking: Looking, drain: Drain, broker_memory: RememberingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: float) -> None:
        raise RuntimeError("measuring")

    start(numbers=10 * SIZE, drain=drain)
    relay(broker_memory, 64)
    monkeypatch.setattr("worker.warm_up.after_chunk", fail)
    with pytest.raises(RuntimeError, match="measuring"):
        run_step(broker_memory.messages.popleft()[1], "test@here")
    assert states() == {ChunkState.DONE: 1, ChunkState.READY: 9}
