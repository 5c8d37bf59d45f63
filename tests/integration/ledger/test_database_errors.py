"""What an error of the database does to a chunk: waits, ends the job, or counts as a death of its items."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from shopvision.database import connect
from tests.integration.ledger.conftest import CountKind, CountParams, effects
from worker.kinds import ChunkResult, StepContext
from worker.ledger import jobs
from worker.ledger.progress import job_progress, list_failures
from worker.ledger.tables import Chunk

pytestmark = pytest.mark.usefixtures("count_kind")
Drain = Callable[..., int]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``raising("53100", "3")``: real Postgres raises this state wherever the item 3 is worked on."""
    original = CountKind.run

    def arm(state: str, bad: str) -> None:
        def run(self: CountKind, params: CountParams, keys: list[str], context: StepContext) -> ChunkResult:
            if bad in keys:
                with connect() as connection:
                    connection.execute(text(f"DO $$BEGIN RAISE 'so it is' USING ERRCODE = '{state}'; END$$"))
            return original(self, params, keys, context)

        monkeypatch.setattr(CountKind, "run", run)

    return arm


def submit(numbers: int = 8) -> uuid.UUID:
    with connect() as connection:
        return jobs.submit(connection, "count", {"numbers": numbers})


@pytest.mark.parametrize("state", ["40P01", "57P01", "53300"])
def test_what_passes_is_waited_for(drain: Drain, raising: Callable[[str, str], None], state: str) -> None:
    raising(state, "3")
    job_id = submit(numbers=4)
    drain()
    assert job_progress(job_id).state == "running"
    with connect() as connection:
        row = connection.execute(select(Chunk.state, Chunk.deaths, Chunk.postponed).where(Chunk.phase == "chunk")).one()
    assert tuple(row) == ("ready", 0, 1)


@pytest.mark.parametrize(("state", "words"), [("53100", "disk is full"), ("57014", "refuses"), ("42P01", "schema")])
def test_what_somebody_has_to_mend_ends_the_job_in_one_line(
    drain: Drain, raising: Callable[[str, str], None], state: str, words: str
) -> None:
    """No item is called poison for a disk that is full, and nobody waits for an hour."""
    raising(state, "3")
    job_id = submit()
    drain()
    progress = job_progress(job_id)
    assert progress.state == "failed"
    assert progress.error is not None
    assert words in progress.error
    assert "\n" not in progress.error
    assert list_failures(job_id, limit=1) == []


@pytest.mark.parametrize("state", ["22003", "23514", "54000"])
def test_a_value_that_cannot_be_stored_costs_its_item_alone(
    drain: Drain, raising: Callable[[str, str], None], state: str
) -> None:
    raising(state, "3")
    job_id = submit()
    drain()
    assert job_progress(job_id).state == "succeeded"
    [failure] = list_failures(job_id, limit=2)
    assert (failure["item_key"], failure["code"]) == ("3", "poison")
    assert "so it is" in failure["message"]
    assert len(effects()) == 7
