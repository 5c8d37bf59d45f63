"""A job kind of our own, registered beside the real ones, and a broker that only remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, text

from shopvision.database import connect
from worker import kinds
from worker.kinds import ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.ledger.outbox import relay


class CountParams(JobParams):
    numbers: int = 10
    bad: tuple[int, ...] = ()


class CountKind(JobKind[CountParams]):
    """Writes each number into a table without any uniqueness, so that a double effect shows."""

    name = "count"
    queue = "io"
    chunk_size = 4
    params = CountParams

    def split(self, params: CountParams, context: StepContext) -> Iterator[str]:
        return (str(number) for number in range(params.numbers))

    def run(self, params: CountParams, keys: list[str], context: StepContext) -> ChunkResult:
        good = [key for key in keys if int(key) not in params.bad]

        def write(connection: Connection) -> None:
            for key in good:
                connection.execute(text("INSERT INTO effects VALUES (:key)"), {"key": key})

        failures = [ItemFailed(key, "bad_number", f"{key} is bad") for key in keys if int(key) in params.bad]
        return ChunkResult(done=len(good), failures=failures, counters={"sum": sum(map(int, good))}, write=write)

    def finish(self, params: CountParams, context: StepContext) -> dict[str, Any]:
        return {"effects": len(effects())}


def effects() -> list[str]:
    with connect() as connection:
        return list(connection.scalars(text("SELECT key FROM effects ORDER BY key::int")))


class RememberingBroker:
    """What was sent, urgent first, else first in first out; ``depth`` is what nobody has taken yet."""

    def __init__(self) -> None:
        self.messages: deque[tuple[str, int, str, bool]] = deque()

    def depth(self, queue: str) -> int:
        return sum(1 for message in self.messages if message[2] == queue)

    def send(self, task: str, chunk_id: int, queue: str, *, urgent: bool) -> None:
        place = sum(message[3] for message in self.messages) if urgent else len(self.messages)
        self.messages.insert(place, (task, chunk_id, queue, urgent))


@pytest.fixture
def count_kind(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountKind]:
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])  # drawing tracebacks takes seconds
    kind = CountKind()
    monkeypatch.setattr(kinds, "_kinds", {"count": kind})
    monkeypatch.setattr(kinds, "all_kinds", lambda: kinds._kinds)
    with connect() as connection:
        connection.execute(text("DROP TABLE IF EXISTS effects"))
        connection.execute(text("CREATE TABLE effects (key text)"))
    yield kind
    with connect() as connection:
        connection.execute(text("DROP TABLE effects"))


@pytest.fixture
def broker_memory() -> RememberingBroker:
    return RememberingBroker()


@pytest.fixture
def drain(count_kind: CountKind, broker_memory: RememberingBroker) -> Callable[..., int]:
    """Relay and work off messages, in this process, until nothing is left; returns how many were delivered."""
    from worker.runner import run_step

    def run(limit: int = 1000) -> int:
        delivered = 0
        while delivered < limit:
            relay(broker_memory, 64)
            if not broker_memory.messages:
                return delivered
            run_step(broker_memory.messages.popleft()[1], "test@here")
            delivered += 1
        return delivered

    return run
