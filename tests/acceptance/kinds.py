"""Job kinds for acceptance tests and benchmarks, loaded through SHOPVISION_KIND_MODULES like anybody's own."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy import Connection, text

from worker.kinds import ChunkResult, JobKind, JobParams, register
from worker.ledger.context import StepContext


class NoopParams(JobParams):
    items: int


class Noop(JobKind[NoopParams]):
    """Nothing per item: what is left is the engine."""

    name = "noop"
    queue = "gpu.embed"
    params = NoopParams

    def split(self, params: NoopParams) -> Iterator[str]:
        return (str(number) for number in range(params.items))

    def run(self, params: NoopParams, keys: list[str], context: StepContext) -> ChunkResult:
        return ChunkResult(done=len(keys))


class SleepParams(JobParams):
    items: int
    seconds_per_item: float = 0.05


class Sleep(JobKind[SleepParams]):
    """Sleeps for each item, then notes it in a table without any uniqueness, so that a double effect shows."""

    name = "sleep"
    queue = "gpu.embed"
    chunk_size = 20
    params = SleepParams

    def split(self, params: SleepParams) -> Iterator[str]:
        return (str(number) for number in range(params.items))

    def run(self, params: SleepParams, keys: list[str], context: StepContext) -> ChunkResult:
        done: list[str] = []
        for key in keys:
            if context.should_stop():
                break
            time.sleep(params.seconds_per_item)
            done.append(key)

        def write(connection: Connection) -> None:
            connection.execute(text("INSERT INTO effects SELECT unnest(CAST(:keys AS text[]))"), {"keys": done})

        return ChunkResult(done=len(done), remaining=keys[len(done) :], write=write)


register(Noop())
register(Sleep())
