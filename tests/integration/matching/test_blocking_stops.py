"""Looking for candidates ends at its next batch once it is asked to, and leaves nothing half-written behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from shopvision.database import connect
from shopvision.matching.blocking import candidate_pairs, candidates, merging, stored_keys, vectors
from shopvision.matching.blocking.inverted import Found, KeyIndex
from shopvision.matching.blocking.rows import Rows
from shopvision.matching.options import BlockingOptions
from shopvision.matching.stopping import StopAskedError
from shopvision.matching.tables import MatchingRequest, MatchingState
from tests.integration.index.catalogue import make_model
from tests.integration.matching.scoring_shop import ScoringShop, count
from tests.integration.matching.test_blocking_catalogue import add_item, add_vectors, encoder
from tests.integration.matching.test_stored_keys import require_true_counts
from worker.ledger.progress import job_progress
from worker.ledger.running_step import STOP_FILE_VARIABLE
from worker.ledger.tables import Chunk

__all__ = ["encoder"]


def at_question(number: int) -> tuple[list[int], Callable[[], bool]]:
    """``should_stop`` that says yes when it is asked for the ``number``-th time, and how often it was asked."""
    asked = [0]

    def should_stop() -> bool:
        asked[0] += 1
        return asked[0] == number

    return asked, should_stop


@pytest.mark.usefixtures("database", "encoder")
@pytest.mark.parametrize("few", [True, False])
def test_whatever_is_being_read_or_compared(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((stored_keys, "READ_ITEMS"), (vectors, "READ_ROWS"), (merging, "BATCH_ITEMS")):
        monkeypatch.setattr(module, name, 4)
    monkeypatch.setattr(candidates, "FEW_ITEMS", 100 if few else -1)
    ids = [f"item-{number:02d}" for number in range(12)]
    for number, item_id in enumerate(ids):
        add_item(item_id, f"shirt {number % 5}")
    blocker = make_model("blocker", "1")
    add_vectors(blocker, {item_id: [1, number] for number, item_id in enumerate(ids)})

    def find(should_stop: Callable[[], bool]) -> Any:
        batches = candidate_pairs(ids[:9], BlockingOptions(), blocker=blocker, should_stop=should_stop)
        return [pair for batch in batches for pair in batch]

    asked, never = at_question(0)
    everything = find(never)
    assert everything
    assert asked[0] > 6  # of keys made, items, vectors and pairs several batches each, or all but the first
    stored_keys.bring_up_to_date()
    for number in range(1, asked[0] + 1):
        with connect() as connection:
            connection.exec_driver_sql("DELETE FROM blocking_keys; DELETE FROM blocking_key_counts")
        stopped, should_stop = at_question(number)
        with pytest.raises(StopAskedError):
            find(should_stop)
        assert stopped == [number]
    assert find(at_question(0)[1]) == everything
    require_true_counts()


def test_a_worker_that_shuts_down_looks_no_further_and_hands_the_search_to_another(
    shop: ScoringShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(merging, "BATCH_ITEMS", 1)
    monkeypatch.setenv(STOP_FILE_VARIABLE, str(tmp_path / "stop"))
    batches: list[int] = []
    find = KeyIndex.find

    def found_and_told(self: KeyIndex, rows: Rows) -> list[Found]:
        batches.extend(rows.tolist())
        (tmp_path / "stop").touch()
        return find(self, rows)

    monkeypatch.setattr(KeyIndex, "find", found_and_told)
    job_id = shop.submit()
    shop.work(limit=3)  # splits, makes vectors, splits again
    assert len(set(batches)) == 1
    with connect() as connection:
        splits = connection.execute(select(Chunk.state, Chunk.deaths).where(Chunk.phase == "split")).all()
    assert sorted(map(tuple, splits)) == [("done", 0), ("ready", 0)]
    assert (count(MatchingRequest), count(MatchingState), shop.scorer.pairs) == (6, 6, 0)
    (tmp_path / "stop").unlink()
    monkeypatch.setattr(KeyIndex, "find", find)
    shop.work()
    assert job_progress(job_id).state == "succeeded"
    assert len(shop.scores()) == shop.scorer.pairs > 3
