"""score_pairs on real Postgres, from submission to scores and groups, with the runner called directly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import func, insert, select, text, update

from shopvision.catalogue import delete_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.index.publish import publish
from shopvision.index.tables import Embedding
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.matching import due_items, requests
from shopvision.matching.due_items import DueScope
from shopvision.matching.scoring.predict import Rows
from shopvision.matching.scoring.score_file import NOTHING_IN_COMMON
from shopvision.matching.tables import ItemGroupMember, ItemVector, MatchingState, PairScore
from shopvision.models import activate
from shopvision.models.tables import ModelRole
from shopvision.storage import open_store
from tests.integration.index.catalogue import make_model
from tests.integration.matching.scoring_shop import (
    TITLES,
    PictureTower,
    ScoringShop,
    WordScorer,
    WordTower,
    add_scorer,
    count,
    expected,
    overlap,
)
from worker.kinds import ChunkResult, get_kind, parse_params
from worker.ledger import commits, jobs, leases
from worker.ledger.leases import LeaseLostError
from worker.ledger.progress import job_progress, list_failures
from worker.ledger.running_step import RunningStep
from worker.ledger.tables import Chunk


def test_candidates_are_scored_and_grouped(shop: ScoringShop) -> None:
    job = shop.run()
    assert (job.state, job.failed, job.error) == ("succeeded", 0, None)
    scores = shop.scores()
    assert scores.items() >= expected("ab", "ac", "bc", "xy").items()
    assert scores == expected(*(left + right for left, right in scores))
    verdicts = [verdict for _, verdict in scores.values()]
    assert job.result is not None
    assert {name: job.result[name] for name in ("model", "blocker", "pairs", "same", "different", "review")} == {
        "model": "scorer:1", "blocker": "blocker:1", "pairs": len(scores),
        **{name: verdicts.count(name) for name in ("same", "different", "review")},
    }  # fmt: skip
    assert job.result["groups"]["groups"] == 2
    assert job.total == 6 + len(scores)  # vectors, then pairs
    assert set(shop.jobs_of_scores().values()) == {job.job_id}
    with connect() as connection:
        groups = connection.execute(
            select(ItemGroupMember.group_id, func.array_agg(ItemGroupMember.item_id)).group_by("group_id")
        )
        assert sorted(sorted(members) for _, members in groups) == [["a", "b"], ["x", "y"]]
        items = items_from_catalogue(connection, ["a", "b"])
        digest = connection.scalar(
            select(PairScore.input_hash).where(PairScore.left_item_id == "a", PairScore.right_item_id == "b")
        )
    assert digest == hashlib.sha256(items["a"].content_hash() + items["b"].content_hash() + b"0.6 0.3").digest()


def test_a_second_run_has_nothing_to_do_and_one_over_everything_does_all_anew(shop: ScoringShop) -> None:
    first = shop.run()
    pairs, items = shop.scorer.pairs, shop.blocker.items
    assert (pairs, items) == (len(shop.scores()), 6)
    again = shop.run()
    assert (again.state, again.total, shop.scorer.pairs, shop.blocker.items) == ("succeeded", 0, pairs, 6)
    named = shop.run(item_ids=["a", "a"])
    assert named.done == named.skipped == named.total != 0
    assert (shop.scorer.pairs, shop.blocker.items) == (pairs, 6)
    assert set(shop.jobs_of_scores().values()) == {first.job_id}
    everything = shop.run(scope="all")
    assert (everything.done, everything.skipped) == (6 + pairs, 0)
    assert (shop.scorer.pairs, shop.blocker.items) == (2 * pairs, 12)
    assert set(shop.jobs_of_scores().values()) == {everything.job_id}


def test_a_changed_item_is_matched_again_and_so_are_its_former_pairs(shop: ScoringShop) -> None:
    first = shop.run()
    before = shop.scores()
    shop.put("b", "Blue cotton summer dress petite")
    shop.put("new", "Garden chair teak brown")
    second = shop.run()
    assert second.result is not None
    assert second.counters["vectors"] == 2
    by_job = shop.jobs_of_scores()
    touched = {pair for pair, job_id in by_job.items() if job_id == second.job_id}
    assert touched == {pair for pair in by_job if "b" in pair or "new" in pair}
    assert touched >= {("a", "b"), ("b", "c"), ("b", "x"), ("b", "y"), ("new", "z")}
    assert {pair for pair in before if "b" in pair} <= touched  # also those that are no candidates any more
    assert shop.scores()["a", "b"] == (0.0, "different")
    assert {by_job[pair] for pair in by_job if pair not in touched} == {first.job_id}
    assert shop.run().total == 0


def test_what_no_model_sees_makes_an_item_due_but_scores_nothing(shop: ScoringShop) -> None:
    shop.run()
    pairs = shop.scorer.pairs
    shop.put("a", TITLES["a"], updated_at="2026-01-01T00:00:00Z")
    job = shop.run()
    assert job.done == job.skipped > 0
    assert job.result is not None
    assert job.result["unchanged"] == job.result["pairs"] > 0
    assert (shop.scorer.pairs, shop.blocker.items) == (pairs, 6)
    assert shop.run().total == 0


def test_an_item_that_changes_while_the_job_runs_is_due_again(shop: ScoringShop) -> None:
    job_id = shop.submit()
    shop.work(limit=1)
    shop.put("a", "Acme drill DX100 used")
    shop.work()
    assert job_progress(job_id).state == "succeeded"
    assert shop.scores()["a", "b"][0] == pytest.approx(overlap("Acme drill DX100 used", TITLES["b"]), abs=1e-4)
    again = shop.run()
    assert again.done == again.skipped > 0
    assert shop.run().total == 0


def test_other_thresholds_and_a_model_on_trial(shop: ScoringShop) -> None:
    shop.run()
    groups = count(ItemGroupMember)
    shop.models[add_scorer("trial", tower=True)] = tower = WordTower()
    job = shop.run(model="trial:1", thresholds={"same": 0.999, "different": 0.999}, blocking={"max_per_item": 1})
    assert job.result is not None
    assert "groups" not in job.result
    assert count(ItemGroupMember) == groups
    assert {verdict for _, verdict in shop.scores("trial").values()} == {"different"}
    assert tower.items <= 6  # each once, in however many pairs it is
    assert job.result["different"] == job.result["pairs"] <= 6
    rescored = shop.run(item_ids=list(TITLES), model="trial:1", thresholds={"same": 0.5, "different": 0.1})
    assert rescored.result is not None
    assert rescored.result["unchanged"] == 0  # other thresholds, other verdicts
    assert tower.items <= 6


def test_a_cascade_leaves_only_doubtful_pairs_to_the_model(shop: ScoringShop) -> None:
    path = shop.folder / "pairs.csv"
    pairs = ["ab", "ac", "ax", "bc", "xy", "yz"]
    path.write_text("left_id,right_id\n" + "".join(f"{left},{right}\n" for left, right in pairs))
    job = shop.run(pairs_file=str(path), cascade={"low": 0.1, "high": 0.8})
    doubtful = [pair for pair in pairs if 0.1 < overlap(TITLES[pair[0]], TITLES[pair[1]]) < 0.8]
    assert 0 < len(doubtful) < len(pairs)
    assert (job.done, job.counters["passed_on"]) == (6, len(doubtful))
    assert (shop.scorer.pairs, shop.blocker.pairs) == (len(doubtful), 6)
    assert shop.scores() == expected(*pairs)
    assert job.params["cascade"] == {"model": "blocker:1", "low": 0.1, "high": 0.8}
    default = shop.run(pairs_file=str(path), cascade=True)
    assert default.params["cascade"] == {"model": "blocker:1", "low": 0.3, "high": 0.6}
    # Limits inside the zone of review of the card (0.3 to 0.6), outside of the job's own.
    narrow = {"thresholds": {"different": 0.4, "same": 0.55}, "cascade": {"low": 0.38, "high": 0.58}}
    again = shop.run(pairs_file=str(path), **narrow)
    assert (again.state, again.failed, again.done) == ("succeeded", 0, 6)


def test_pictures_that_are_missing_or_cannot_be_read(bare_shop: ScoringShop) -> None:
    shop = bare_shop
    shop.models[add_scorer("pictures", tower=True)] = PictureTower()
    activate("pair_scorer", "pictures:1")
    Image.new("RGB", (8, 8), (250, 0, 0)).save(shop.folder / "red.png")
    (shop.folder / "broken.png").write_bytes(b"no picture")
    red = (shop.folder / "red.png").as_uri()
    shop.put("a", "one two", red)
    shop.put("b", "one two", red)
    shop.put("without", "one two")
    with connect() as connection:
        connection.execute(text("DELETE FROM item_images WHERE item_id = 'without'"))
    shop.put("broken", "one two", (shop.folder / "broken.png").as_uri())
    shop.put("lost", "one two", (shop.folder / "lost.png").as_uri())
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\na,b\na,without\na,broken\nlost,a\nlost,without\n")
    job = shop.run(pairs_file=str(path))
    assert (job.done, job.failed) == (1, 4)
    codes = {failure["item_key"]: failure["code"] for failure in list_failures(job.job_id, limit=10)}
    assert codes == {
        '["a","broken"]': "text", '["a","lost"]': "not_found", '["a","without"]': "no_picture",
        '["lost","without"]': "no_picture",
    }  # fmt: skip
    Image.new("RGB", (8, 8)).save(shop.folder / "broken.png")
    retry = jobs.retry_failed(job.job_id)
    shop.work()
    assert (job_progress(retry).done, job_progress(retry).failed) == (1, 3)


def test_items_without_words_fail_and_absurd_ones_pass(bare_shop: ScoringShop) -> None:
    shop = bare_shop
    shop.put("empty", "")
    shop.put("long", "word " * 400)
    shop.put("a", 'word 中文 \U0001f600 "quoted" \\slash')
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\nempty,a\nlong,a\n")
    job = shop.run(pairs_file=str(path))
    assert (job.done, job.failed) == (1, 1)
    [failure] = list_failures(job.job_id, limit=10)
    assert (failure["item_key"], failure["code"]) == ('["a","empty"]', "no_text")


class DividedScorer(WordScorer):
    """An ensemble of which no member reads an item without a title beside another one."""

    def check(self, item: Item) -> None:
        pass

    def readable_pairs(self, items: Sequence[Item], left: Rows, right: Rows) -> NDArray[np.bool_]:
        has_title = np.array([bool(item.title) for item in items])
        both: NDArray[np.bool_] = has_title[left] == has_title[right]
        return both


def test_a_pair_that_no_member_of_an_ensemble_reads_as_a_whole_fails(bare_shop: ScoringShop) -> None:
    bare_shop.models["scorer:1"] = DividedScorer()
    for item_id in "abc":
        bare_shop.put(item_id, TITLES[item_id] if item_id != "c" else "")
    path = bare_shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\na,b\na,c\n")
    job = bare_shop.run(pairs_file=str(path))
    assert (job.state, job.done, job.failed) == ("succeeded", 1, 1)
    [failure] = list_failures(job.job_id, limit=9)
    assert (failure["item_key"], failure["code"]) == ('["a","c"]', "nothing_in_common")
    assert failure["message"] == f"'a' and 'c': {NOTHING_IN_COMMON}."
    assert set(bare_shop.scores()) == {("a", "b")}


def test_ids_may_hold_anything(bare_shop: ScoringShop) -> None:
    shop = bare_shop
    ids = ['quote"', "back\\slash", "中文", "Z", "a b", "[1]", "row 7"]
    for item_id in ids:
        shop.put(item_id, "Acme drill DX100 cordless 18V")
    job = shop.run()
    assert (job.state, job.failed) == ("succeeded", 0)
    ordered = sorted(ids)
    assert set(shop.scores()) == {(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]}


def test_what_failed_for_the_moment_is_tried_again_the_next_night(
    shop: ScoringShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shopvision.errors import ItemError
    from shopvision.matching.scoring import item_vectors

    shop.models["blocker:1"] = PictureTower()
    for item_id, title in TITLES.items():
        shop.put(item_id, title, f"https://shop.example/{item_id}.jpg")

    class Door:
        limits = None
        codes: ClassVar = {"a": "unavailable", "x": "not_found"}

        def __init__(self, settings: object) -> None: ...
        def __enter__(self) -> Door:
            return self

        def __exit__(self, *error: object) -> None: ...

        def fetch(self, uri: str) -> object:
            if code := self.codes.get(uri[-5]):
                raise ItemError(code, "no")

            class Fetched:
                data = (shop.folder / "red.png").read_bytes()
                sha256, fingerprint = b"", ""

            return Fetched

    Image.new("RGB", (8, 8), (250, 0, 0)).save(shop.folder / "red.png")
    monkeypatch.setattr(item_vectors, "PictureDoor", Door)
    job = shop.run()
    assert (job.state, job.failed) == ("succeeded", 2)
    assert job.result is not None
    with connect() as connection:
        due = connection.scalars(select(MatchingState.item_id).where(MatchingState.content_hash.is_(None))).all()
    assert due == ["a"]
    Door.codes = {}
    again = shop.run()
    assert (again.failed, again.counters["vectors"]) == (0, 1)  # nothing says that the other would go better now
    assert count(ItemVector) == 5


def leased(shop: ScoringShop, **params: object) -> tuple[leases.Lease, RunningStep]:
    """The first chunk of pairs, claimed."""
    job_id = shop.submit(**params)
    while True:
        shop.work(limit=1)
        with connect() as connection:
            row = connection.execute(
                select(Chunk.chunk_id, Chunk.item_keys).where(
                    Chunk.job_id == job_id, Chunk.phase == "chunk", Chunk.state == "ready"
                )
            ).first()
        if row is not None and requests.read(job_id, row.item_keys).pairs:
            lease = leases.claim(row.chunk_id, "test@here")
            assert lease is not None
            return lease, RunningStep(lease, "test@here")


def staged(lease: leases.Lease) -> list[tuple[str, str]]:
    """The pairs of a chunk."""
    return list(requests.read(lease.job_id, lease.item_keys).pairs)


def run_chunk(lease: leases.Lease, context: RunningStep) -> ChunkResult:
    kind = get_kind("score_pairs")
    return kind.run(parse_params(kind, lease.params), lease.item_keys, context)


def test_an_attempt_that_lost_its_lease_writes_nothing(shop: ScoringShop) -> None:
    lease, context = leased(shop)
    result = run_chunk(lease, context)
    with connect() as connection:
        connection.execute(update(Chunk).where(Chunk.chunk_id == lease.chunk_id).values(attempt=Chunk.attempt + 1))
    with pytest.raises(LeaseLostError):
        commits.commit(lease, result)
    assert shop.scores() == {}
    with connect() as connection:
        connection.execute(update(Chunk).where(Chunk.chunk_id == lease.chunk_id).values(attempt=lease.attempt))
    commits.commit(lease, result)
    shop.work()
    assert job_progress(lease.job_id).state == "succeeded"
    assert len(shop.scores()) == len(lease.item_keys)


def test_what_changes_or_leaves_while_a_model_computes_is_not_written(shop: ScoringShop) -> None:
    lease, context = leased(shop)
    result = run_chunk(lease, context)
    pairs = staged(lease)
    shop.put("a", "Acme drill DX100 used")
    with connect() as connection:
        delete_items(connection, ["y"])
    commits.commit(lease, result)
    shop.work()
    assert all(not {"a", "y"} & set(pair) for pair in shop.scores())
    progress = job_progress(lease.job_id)
    assert progress.state == "succeeded"
    assert progress.counters["changed_meanwhile"] == sum(1 for pair in pairs if {"a", "y"} & set(pair))
    shop.run()
    assert ("a", "b") in shop.scores()


def test_it_stops_between_batches_and_goes_on_later(shop: ScoringShop, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, context = leased(shop)
    answers = iter([False, True])
    monkeypatch.setattr(context, "should_stop", lambda: next(answers))
    result = run_chunk(lease, context)
    assert (result.done, result.remaining) == (2, lease.item_keys[2:])
    commits.commit(lease, result)
    assert len(shop.scores()) == 2
    shop.work()
    assert len(shop.scores()) == len(lease.item_keys)
    assert job_progress(lease.job_id).done == 6 + len(lease.item_keys)


def test_it_stops_while_it_makes_vectors_and_keeps_those_made(
    shop: ScoringShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shopvision.matching.scoring.item_pictures.TEXTS_AT_ONCE", 4)
    shop.models[add_scorer("tower", tower=True)] = tower = WordTower()
    lease, context = leased(shop, model="tower:1")
    monkeypatch.setattr(context, "should_stop", lambda: True)
    result = run_chunk(lease, context)
    items = {item_id for pair in staged(lease) for item_id in pair}
    assert (result.done, result.remaining, tower.items) == (0, lease.item_keys, 4)
    commits.commit(lease, result)
    shop.work()
    assert tower.items == len(items)
    assert len(shop.scores("tower")) == len(lease.item_keys)


def test_the_nightly_run_without_a_scorer(shop: ScoringShop) -> None:
    with connect() as connection:
        connection.execute(text("DELETE FROM model_roles WHERE role = 'pair_scorer'"))
    job = shop.run()
    assert (job.state, job.total) == ("succeeded", 0)
    assert "No model serves the role pair_scorer" in job.sentence()
    asked_for = shop.run(scope="all")
    assert (asked_for.state, asked_for.error is not None) == ("failed", True)


def test_another_model_matches_every_item_anew_and_keeps_the_scores_of_the_first(shop: ScoringShop) -> None:
    first = shop.run()
    shop.models[add_scorer("second")] = shop.scorer
    activate("pair_scorer", "second:1")
    second = shop.run()
    assert second.result is not None
    assert first.result is not None
    assert second.result["pairs"] == first.result["pairs"]
    assert shop.scores() == shop.scores("second")
    assert shop.blocker.items == 6


def test_without_a_blocker_words_and_codes_find_candidates(shop: ScoringShop) -> None:
    job = shop.run(blocker="none")
    assert job.counters["vectors"] == shop.blocker.items == 0
    assert shop.scores().items() >= expected("ab", "xy").items()


def test_marks_of_several_jobs_do_not_mix(shop: ScoringShop) -> None:
    """The later job takes over what both would match; the earlier one's end does not make it matched."""
    with connect() as connection:
        version = connection.scalars(text("SELECT model_version_id FROM model_versions WHERE name = 'scorer'")).one()
    one, other = shop.submit(), shop.submit()
    assert due_items.mark_due(version, one, DueScope()) == 6
    assert due_items.mark_due(version, other, DueScope(item_ids=["a", "b"])) == 2
    assert set(due_items.due_items(one)) == set("cxyz")
    due_items.complete(one, ["x"])
    with connect() as connection:
        matched = connection.scalars(select(MatchingState.item_id).where(MatchingState.content_hash.is_not(None)))
        assert set(matched) == set("cyz")
    assert set(due_items.due_items(other)) == {"a", "b"}


def test_the_published_index_finds_items_that_look_alike(shop: ScoringShop) -> None:
    """Two that share no word, but nearly a picture; before anything is published nothing brings them together."""
    encoder = make_model("encoder", "1")
    with connect() as connection:
        connection.execute(
            insert(ModelRole).values(role="catalogue_encoder", model_version_id=encoder.model_version_id)
        )
    directions = {"c": [1.0, 0, 0], "z": [1.0, 0.1, 0], "x": [0, 0, 1.0]}
    for item_id, direction in directions.items():
        with connect() as connection:
            image_id = connection.scalar(select(ItemImage.image_id).where(ItemImage.item_id == item_id))
            vector = (np.array(direction) / np.linalg.norm(direction)).astype("<f2").tobytes()
            values = {"image_sha256": item_id.encode(), "source_fingerprint": "x", "vector": vector}
            row = {"model_version_id": encoder.model_version_id, "image_id": image_id, **values}
            connection.execute(insert(Embedding).values(row))
    shop.run(blocker="none")
    assert ("c", "z") not in shop.scores()
    publish("catalogue", encoder, open_store())
    shop.run(blocker="none", item_ids=["c"])
    assert shop.scores()["c", "z"] == (0.0, "different")
    assert ("c", "x") not in shop.scores()


def test_exact_matches_are_told_apart_from_what_the_model_says(shop: ScoringShop) -> None:
    """Two have one number, two one picture; a picture that all items show is none of theirs."""
    shop.put("a", TITLES["a"], attributes=[{"key": "EAN", "value": "4006381333931"}])
    shop.put("c", TITLES["c"], attributes=[{"key": "gtin", "value": "04006381333931"}])
    encoder = make_model("encoder", "1")
    seen = {"a": b"one", "b": b"one", "x": b"two"} | {f"more{row}": b"two" for row in range(51)}
    for item_id in seen.keys() - TITLES.keys():
        shop.put(item_id, "Blue cotton summer dress")
    with connect() as connection:
        connection.execute(
            insert(ModelRole).values(role="catalogue_encoder", model_version_id=encoder.model_version_id)
        )
        ids = dict(connection.execute(select(ItemImage.item_id, ItemImage.image_id)).all())
        row = {"model_version_id": encoder.model_version_id, "source_fingerprint": "x", "vector": b"\0\0"}
        connection.execute(
            insert(Embedding),
            [{**row, "image_id": ids[item_id], "image_sha256": sha256} for item_id, sha256 in seen.items()],
        )
    job = shop.run(blocking={"sources": ["words", "code"]})
    assert job.result is not None
    with connect() as connection:
        columns = PairScore.left_item_id + PairScore.right_item_id, PairScore.exact
        exact = {pair: what for pair, what in connection.execute(select(*columns)) if what}
        sure = connection.scalar(
            select(func.count()).where(PairScore.verdict == "same", func.cardinality(PairScore.exact) > 0)
        )
    assert exact == {"ac": ["code"], "ab": ["picture"]}
    assert job.result["same_exact"] == sure == 1  # the model is not sure of a and c
