"""Job kinds for acceptance tests and benchmarks, loaded through SHOPVISION_KIND_MODULES like anybody's own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection, text

from tasks.rank_plans import RankParams, RankPlans
from tasks.refresh_embeddings import RefreshEmbeddings, RefreshParams
from tasks.score_pairs import ScorePairs, ScoreParams
from worker.kinds import ChunkResult, JobKind, JobParams, StepContext
from worker.registration import register


def note_effects(connection: Connection, keys: list[str]) -> None:
    """In a table without any uniqueness, so that a double effect shows."""
    connection.execute(text("INSERT INTO effects SELECT unnest(CAST(:keys AS text[]))"), {"keys": keys})


def wait_at_gate(gate: str | None, should_stop: Callable[[], bool]) -> None:
    """Hold whoever comes while the folder ``gate`` is there, until the file that names the process is taken away.

    So a fault hits work in hand, however fast or slow the machine is.
    """
    if gate is None:
        return
    mark = Path(gate) / str(os.getpid())
    try:
        mark.touch()
    except FileNotFoundError:
        return
    while mark.exists() and not should_stop():
        time.sleep(0.02)
    mark.unlink(missing_ok=True)


class NoopParams(JobParams):
    items: int


class Noop(JobKind[NoopParams]):
    """Nothing per item: what is left is the engine."""

    name = "noop"
    queue = "gpu.embed"
    params = NoopParams

    def split(self, params: NoopParams, context: StepContext) -> Iterator[str]:
        return (str(number) for number in range(params.items))

    def run(self, params: NoopParams, keys: list[str], context: StepContext) -> ChunkResult:
        return ChunkResult(done=len(keys))


class SleepParams(JobParams):
    items: int
    seconds_per_item: float = 0.05


class Sleep(JobKind[SleepParams]):
    """Sleeps for each item, then notes it."""

    name = "sleep"
    queue = "gpu.embed"
    chunk_size = 20
    params = SleepParams

    def split(self, params: SleepParams, context: StepContext) -> Iterator[str]:
        return (str(number) for number in range(params.items))

    def run(self, params: SleepParams, keys: list[str], context: StepContext) -> ChunkResult:
        done: list[str] = []
        for key in keys:
            if context.should_stop():
                break
            time.sleep(params.seconds_per_item)
            done.append(key)
        return ChunkResult(
            done=len(done),
            remaining=keys[len(done) :],
            write=lambda connection: note_effects(connection, done),
        )


class SmallRefreshParams(RefreshParams):
    """Every batch waits at a ``gate`` when it is embedded; a picture ``deadly`` kills whoever works on it."""

    gate: str | None = None
    deadly: int | None = None


class RefreshInSmallChunks(RefreshEmbeddings):
    """The real refresh, cut small and held where a test wants it, so that faults hit it midway; effects are noted."""

    name = "refresh_small_chunks"
    chunk_size = 16
    params = SmallRefreshParams

    def run(self, params: RefreshParams, keys: list[str], context: StepContext) -> ChunkResult:
        assert isinstance(params, SmallRefreshParams)
        if str(params.deadly) in keys:
            os.kill(os.getpid(), signal.SIGKILL)
        ask, gate = context.should_stop, params.gate

        def wait_and_ask() -> bool:
            wait_at_gate(gate, ask)
            return ask()

        context.should_stop = wait_and_ask  # type: ignore[method-assign]
        result = super().run(params, keys, context)
        write, left = result.write, {*result.remaining, *(failure.key for failure in result.failures)}

        def write_and_note(connection: Connection) -> None:
            if write is not None:
                write(connection)
            note_effects(connection, [key for key in keys if key not in left])

        result.write = write_and_note
        return result


class RefreshInTinyChunks(RefreshInSmallChunks):
    name = "refresh_tiny_chunks"
    chunk_size = 4


class RefreshInOneChunk(RefreshInSmallChunks):
    name = "refresh_one_chunk"
    chunk_size = 10_000


class RankSlowly(RankPlans):
    """The real ranking in many small chunks of a second and more."""

    name = "rank_slowly"
    chunk_size = 2

    def run(self, params: RankParams, keys: list[str], context: StepContext) -> ChunkResult:
        time.sleep(1.0)
        return super().run(params, keys, context)


class GatedScoreParams(ScoreParams):
    gate: str | None = None


class ScoreInSmallChunks(ScorePairs):
    """The real matching, held before each chunk where a test wants it; every pair that was written is noted."""

    name = "score_small_chunks"
    chunk_size = 64
    params = GatedScoreParams

    def run(self, params: ScoreParams, keys: list[str], context: StepContext) -> ChunkResult:
        assert isinstance(params, GatedScoreParams)
        wait_at_gate(params.gate, context.should_stop)
        result = super().run(params, keys, context)
        write = result.write

        def write_and_note(connection: Connection) -> None:
            if write is not None:
                write(connection)
            note_effects(connection, keys)

        result.write = write_and_note
        return result


for kind in (
    Noop(), Sleep(), RankSlowly(), ScoreInSmallChunks(),
    RefreshInSmallChunks(), RefreshInTinyChunks(), RefreshInOneChunk(),
):  # fmt: skip
    register(kind)
