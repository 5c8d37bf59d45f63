"""Real workers find equal items in a catalogue, score pairs of a file, and lose nothing when one is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, func, select, text, update

from shopvision.catalogue.tables import Item
from shopvision.database import connect
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.matching.scoring.predict import PairScorer
from shopvision.matching.tables import ItemVector, PairScore
from shopvision.models import activate, import_model
from shopvision.models.tables import ModelRole
from tests.acceptance.shop import Shop
from tests.made_catalogue import COLOURS, GARMENTS, MATERIALS, NAMES
from tests.unit.matching import tiny_matcher
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny
from worker.ledger.progress import failure_counts, list_failures

pytestmark = pytest.mark.acceptance

FEW = {"max_per_item": 3}


@dataclass(frozen=True)
class Matchers:
    """Tiny models that serve: a one-tower, and a two-tower that finds candidates."""

    scorer: str
    blocker: str
    folder: Path  # of the one-tower


@pytest.fixture
def matchers(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Matchers]:
    # An item of which the vocabulary holds no word could not be read.
    words = (*tiny_matcher.WORDS, *(word.lower() for word in (*GARMENTS, *COLOURS, *MATERIALS, *NAMES)))
    monkeypatch.setattr(tiny_matcher, "WORDS", words)
    monkeypatch.setitem(tiny_matcher.BERT, "vocab_size", len(tiny_matcher.SPECIAL) + len(words) + 1)
    specs = {}
    for role, family, axes in (
        ("pair_scorer", "text_one_tower", ONE), ("pair_blocker", "text_two_tower", COSINE),
    ):  # fmt: skip
        save_tiny(tmp_path / role, arguments(family, axes), name=role)
        specs[role] = import_model(f"local-dir:{tmp_path / role}").spec
        activate(role, specs[role])
    yield Matchers(specs["pair_scorer"], specs["pair_blocker"], tmp_path / "pair_scorer")
    with connect() as connection:
        connection.execute(
            text("TRUNCATE pair_scores, matching_states, item_vectors, group_conflicts, item_groups CASCADE")
        )
        connection.execute(delete(ModelRole).where(ModelRole.role.in_(("pair_scorer", "pair_blocker"))))


def scores() -> dict[tuple[str, str], float]:
    with connect() as connection:
        rows = connection.execute(select(PairScore.left_item_id, PairScore.right_item_id, PairScore.probability))
        return {(row.left_item_id, row.right_item_id): row.probability for row in rows}


def test_matching_by_night_and_pairs_of_a_file(shop: Shop, matchers: Matchers) -> None:
    job = shop.cli("jobs", "submit", "score_pairs", f"blocking={json.dumps(FEW)}", "--wait")
    found = scores()
    items = len(shop.images)
    assert (job["state"], job["failed"], job["total"]) == ("succeeded", 0, items + len(found))
    assert 0 < len(found) <= items * FEW["max_per_item"]
    assert (job["result"]["model"], job["result"]["blocker"]) == (matchers.scorer, matchers.blocker)
    assert sum(job["result"][verdict] for verdict in ("same", "different", "review")) == len(found)
    with connect() as connection:
        assert connection.scalar(select(func.count()).select_from(ItemVector)) == items
        sample = sorted(found)[:: max(1, len(found) // 50)]
        catalogue = items_from_catalogue(connection, [item_id for pair in sample for item_id in pair])
    library = PairScorer(matchers.folder)([(catalogue[left], catalogue[right]) for left, right in sample])
    np.testing.assert_allclose([found[pair] for pair in sample], [one.probability for one in library], atol=0.01)

    again = shop.wait(shop.submit("score_pairs"))
    assert (again.state, again.total) == ("succeeded", 0)
    changed = sample[0][0]
    with connect() as connection:
        before = connection.execute(select(Item.title, Item.content_hash).where(Item.item_id == changed)).one()
        new = {"title": "red apple watch", "content_hash": b"new", "updated_at": func.now()}
        connection.execute(update(Item).where(Item.item_id == changed).values(new))
    night = shop.wait(shop.submit("score_pairs", blocking=FEW))
    with connect() as connection:
        connection.execute(update(Item).where(Item.item_id == changed).values(before._asdict()))
        touched = connection.execute(
            select(PairScore.left_item_id, PairScore.right_item_id).where(PairScore.job_id == night.job_id)
        ).all()
    assert night.result is not None
    assert night.counters["vectors"] == 1
    assert len(touched) == night.result["pairs"] > 0
    assert all(changed in pair for pair in touched)
    assert {pair for pair in found if changed in pair} <= set(map(tuple, touched))

    path = shop.folder / "catalogue" / "pairs.csv"
    left, right = sample[-1]
    path.write_text(f"left_item_id,right_item_id\n{right},{left}\n{left},nowhere\n{left},{left}\n,{left}\n")
    listed = shop.wait(shop.submit("score_pairs", pairs_file=str(path)))
    assert (listed.state, listed.done, listed.skipped, listed.failed) == ("succeeded", 1, 1, 3)
    assert failure_counts(listed.job_id) == {"broken_row": 1, "same_item": 1, "unknown_item": 1}


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(shop: Shop, matchers: Matchers) -> None:
    assert shop.wait(shop.submit("score_pairs", blocking=FEW)).state == "succeeded"
    found = scores()
    with connect() as connection:
        connection.execute(text("TRUNCATE pair_scores, effects"))
    path = shop.folder / "catalogue" / "all_pairs.jsonl"
    path.write_text("".join(json.dumps({"left_id": left, "right_id": right}) + "\n" for left, right in found))
    job_id = shop.submit("score_small_chunks", pairs_file=str(path), gate=shop.close_gate())
    os.kill(shop.holder(job_id)[1], signal.SIGKILL)
    shop.open_gate()
    progress = shop.wait(job_id)
    assert (progress.state, progress.done, progress.failed) == ("succeeded", len(found), 0)
    assert shop.deaths(job_id) == 1
    assert list_failures(job_id, limit=1) == []
    assert scores() == pytest.approx(found, abs=0.01)
    with connect() as connection:
        effects = list(connection.scalars(text("SELECT key FROM effects")))
    assert len(effects) == len(set(effects)) == len(found)  # rows of the file, each written once
