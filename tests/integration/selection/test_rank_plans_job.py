"""rank_plans on real Postgres, from submission to rankings, with the runner called directly."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, text, update

from shopvision.catalogue import delete_items, delete_plans
from shopvision.catalogue.tables import Item, ItemImage, Plan, PlanItem
from shopvision.database import connect
from shopvision.index.tables import Embedding
from shopvision.models import activate
from shopvision.models.tables import ModelRole
from shopvision.selection import job as rank
from shopvision.selection import store
from shopvision.selection.store import Scope
from shopvision.selection.tables import PlanRanking, PlanRankingState
from tests.integration.selection.conftest import (
    BLUE,
    GREEN,
    GREY,
    OLIVE,
    PURPLE,
    RED,
    RankingShop,
    add_model,
    count,
    unit,
)
from worker.ledger.progress import list_failures
from worker.retention import prune


def test_pictures_are_ranked_by_their_compatibility(palette: RankingShop) -> None:
    job = palette.run(top_k=3, bottom_k=2)
    assert (job.state, job.total, job.done, job.failed) == ("succeeded", 1, 1, 0)
    colours = np.array([RED, PURPLE, OLIVE, GREY, GREEN, BLUE], np.float64) + 1
    expected = colours[:, 0] / np.linalg.norm(colours, axis=1)  # the cosine with pure red
    ranking = palette.ranking("p")
    assert [(rank, item) for rank, item, _ in ranking] == [
        (1, "red"), (2, "purple"), (3, "olive"), (5, "green"), (6, "blue"),
    ]  # fmt: skip
    np.testing.assert_allclose([score for _, _, score in ranking], expected[[0, 1, 2, 4, 5]], atol=1e-3)
    assert job.result == {
        "model": "ranker:1", "method": "plan_ranker", "plans": 1, "failed": 0,
        "candidates": 6, "found": 0, "unreadable": 0, "embedded": 6, "shared": 0, "top_changed": 0,
    }  # fmt: skip
    state = palette.state("p")
    assert (state.job_id, state.candidates, state.top_image_id) == (job.job_id, 6, palette.image("red"))
    with connect() as connection:
        assert set(connection.scalars(select(PlanRanking.job_id))) == {job.job_id}


def test_a_run_over_unchanged_plans_does_nothing_and_one_over_new_texts_reads_no_picture(palette: RankingShop) -> None:
    palette.run()
    assert (palette.seen, palette.ranker.topics) == (6, 1)
    assert palette.run().total == 0
    for path in palette.folder.iterdir():
        path.unlink()  # not even looked at
    palette.add_plan("p", "blue sale", "red", "green", "blue")
    job = palette.run()
    assert (job.total, job.done, job.counters["unreadable"]) == (1, 1, 0)
    assert (palette.seen, palette.ranker.topics) == (6, 2)
    assert palette.ranking("p")[0][1] == "blue"
    assert palette.run(scope="all").done == 1
    assert (palette.seen, palette.ranker.topics) == (6, 3)


def test_what_a_plan_is_due_for(palette: RankingShop) -> None:
    palette.add_plan("other", "blue", "blue")
    palette.run()

    def due(**params: object) -> int:
        return int(palette.run(**params).total or 0)

    assert due() == 0
    palette.add_plan("other", "blue", "blue", kwds=["sky"])
    assert due() == 1
    palette.add_plan("other", "blue", "blue", "red")
    assert due() == 1
    palette.upsert_item("blue", palette.paint("another", PURPLE))
    assert due() == 2  # both have that item
    palette.add_item("late", RED)
    assert due() == 0
    palette.add_plan("p", "red", "late")
    assert due() == 1
    with connect() as connection:
        delete_items(connection, ["late"])
    palette.run()
    assert due() == 0
    assert due(top_k=7) == 2
    assert due(top_k=7, pictures="all") == 2
    assert due() == 2
    activate("plan_ranker", add_model("ranker", "plan_ranker", tag="2"))
    assert due() == 2


def test_a_plan_without_a_date_begins_when_the_job_says(palette: RankingShop) -> None:
    palette.add_plan("dated", "blue", "blue", date="2026-03-31T23:30+00:00")
    job = palette.run(undated="2026-11-29")
    assert (job.result["undated_as"], job.result["undated"], job.done) == ("2026-11-29", 1, 2)
    assert palette.ranker.dates == ["2026-03-31", "2026-11-29"]
    assert palette.run(undated="2026-12-05").total == 0  # of the same season
    assert palette.run(undated="2027-01-05").total == 1
    job = palette.run()
    assert (job.total, palette.ranker.dates[-1], "undated" in job.result) == (1, "", False)


def test_the_input_hash_is_that_of_everything_the_ranking_depends_on(palette: RankingShop) -> None:
    palette.refreshed("green", b"g" * 32)
    palette.run(top_k=4)
    own = {
        name: hashlib.sha256((palette.folder / f"{name}-0.png").read_bytes()).digest()
        for name in ("red", "blue", "purple", "olive", "grey")
    }
    pictures = sorted((palette.image(name), sha256) for name, sha256 in {**own, "green": b"g" * 32}.items())
    with connect() as connection:
        content = connection.scalars(select(Plan.content_hash)).one()
    marks = b"".join(image_id.to_bytes(8, "big") + sha256 for image_id, sha256 in pictures)
    expected = hashlib.sha256(bytes(content) + b"False 4 5 1" + marks).digest()
    assert palette.state("p").input_hash == expected


def test_plans_that_cannot_be_ranked_say_why_and_are_left_alone_until_something_changes(shop: RankingShop) -> None:
    shop.add_item("good", RED)
    (shop.folder / "bad-0.png").write_text("<html>404</html>")
    shop.upsert_item("bad", (shop.folder / "bad-0.png").as_uri())
    shop.add_plan("1 empty", "red")
    shop.add_plan("2 unknown", "red", "nothing like it")
    shop.add_plan("3 unreadable", "red", "bad")
    shop.add_plan("4 few", "red", "good", "bad")
    shop.add_plan("5 date", "red", "good", date="next spring")
    shop.add_item("more", BLUE)
    shop.add_plan("6 good", "red", "good", "more")
    shop.add_plan("7 long", "red", "good", "more", cat1="c" * 101)
    job = shop.run(min_candidates=2)
    assert (job.state, job.done, job.failed) == ("succeeded", 1, 6)
    found = {row["item_key"]: (row["code"], row["message"]) for row in list_failures(job.job_id, limit=10)}
    assert {key: code for key, (code, _) in found.items()} == {
        "1 empty": "no_candidates", "2 unknown": "no_candidates", "3 unreadable": "no_readable_candidates",
        "4 few": "too_few_candidates", "5 date": "bad_topic", "7 long": "bad_topic",
    }  # fmt: skip
    assert "the first: html: " in found["3 unreadable"][1]
    assert "1 readable" in found["4 few"][1]
    assert "next spring" in found["5 date"][1]
    assert shop.run(min_candidates=2).total == 0
    shop.add_plan("1 empty", "red", "good", "more")
    job = shop.run(min_candidates=2)
    assert (job.total, job.done) == (1, 1)


def test_a_plan_that_lost_its_candidates_loses_its_ranking(palette: RankingShop) -> None:
    palette.run()
    palette.add_plan("p", "red sale")
    assert palette.run().state == "failed"
    assert palette.ranking("p") == []
    assert palette.state("p").top_image_id is None
    palette.add_plan("p", "red sale", "red", "blue")
    assert palette.run().counters["top_changed"] == 0  # red led before, and leads again


def test_one_candidate_is_ranked_first(shop: RankingShop) -> None:
    shop.add_item("only", BLUE)
    shop.add_plan("p", "red", "only")
    shop.run()
    [(place, item, score)] = shop.ranking("p")
    assert (place, item) == (1, "only")
    assert score == pytest.approx(1 / np.linalg.norm([1, 1, 251]), abs=1e-3)


def test_leading_pictures_or_all(shop: RankingShop) -> None:
    shop.add_item("shirt", BLUE, RED)
    shop.add_plan("p", "red", "shirt")
    shop.run()
    assert len(shop.ranking("p")) == 1
    shop.run(pictures="all")
    assert [score > 0.9 for _, _, score in shop.ranking("p")] == [True, False]


def test_ten_thousand_candidates(shop: RankingShop) -> None:
    generator = np.random.default_rng(7)
    vectors = unit(generator.normal(size=(10_000, 3))).astype("<f2")
    shop.add_plan("p", "green")
    with connect() as connection:
        ids = [f"i{number:05}" for number in range(10_000)]
        connection.execute(insert(Item), [{"item_id": one, "content_hash": b""} for one in ids])
        image_ids = connection.scalars(
            insert(ItemImage).returning(ItemImage.image_id, sort_by_parameter_order=True),
            [{"item_id": one, "position": 0, "uri": f"file:///{one}"} for one in ids],
        ).all()
        connection.execute(
            insert(PlanItem), [{"plan_id": "p", "item_id": one, "position": place} for place, one in enumerate(ids)]
        )
        version = connection.scalars(select(ModelRole.model_version_id).where(ModelRole.role == "plan_ranker")).one()
        rows = [
            {"model_version_id": version, "image_id": image_id, "image_sha256": b"", "source_fingerprint": "",
             "vector": vector.tobytes()}
            for image_id, vector in zip(image_ids, vectors, strict=True)
        ]  # fmt: skip
        connection.execute(insert(Embedding), rows)
        connection.execute(text("ANALYZE"))  # as Postgres does by itself, a minute later
    job = shop.run(top_k=20, bottom_k=20)
    assert (job.state, job.counters["candidates"], shop.seen) == ("succeeded", 10_000, 0)
    scores = vectors.astype(np.float64)[:, 1]
    order = np.lexsort((np.arange(10_000), -scores))
    expected = [(place + 1, ids[order[place]]) for place in [*range(20), *range(9_980, 10_000)]]
    assert [(place, item) for place, item, _ in shop.ranking("p")] == expected


def test_a_new_top_picture_is_marked(palette: RankingShop) -> None:
    palette.run()
    first = palette.state("p")
    assert (first.previous_top_image_id, first.top_changed_at) == (None, None)
    palette.add_plan("p", "red sale", "purple", "olive")
    job = palette.run()
    second = palette.state("p")
    assert job.counters["top_changed"] == 1
    assert (second.top_image_id, second.previous_top_image_id) == (palette.image("purple"), palette.image("red"))
    assert second.top_changed_at == second.ranked_at
    palette.add_plan("p", "red sale", "purple", "olive", "grey")
    assert palette.run().counters["top_changed"] == 0
    third = palette.state("p")
    assert (third.previous_top_image_id, third.top_changed_at) == (palette.image("red"), second.top_changed_at)
    assert third.ranked_at > third.top_changed_at


def test_every_model_version_keeps_its_own_rankings(palette: RankingShop) -> None:
    palette.run()
    second = add_model("second", "plan_ranker")
    job = palette.run(model=second)
    assert job.done == 1
    assert palette.ranking("p", "second") == palette.ranking("p", "ranker")
    assert palette.run().total == 0
    with connect() as connection:
        connection.execute(update(PlanRankingState).values(ranked_at=text("now() - interval '60 days'")))
    assert prune()["plan_ranking_states"] == 1
    assert palette.ranking("p", "second") == []
    assert len(palette.ranking("p")) == 6


def test_what_is_deleted_takes_its_rankings_along(palette: RankingShop) -> None:
    palette.run()
    with connect() as connection:
        delete_items(connection, ["red"])
    assert palette.ranking("p")[0][1] == "purple"
    with connect() as connection:
        delete_plans(connection, ["p"])
    assert (count(PlanRanking), count(PlanRankingState)) == (0, 0)


def test_what_is_deleted_while_it_is_ranked_is_left_out(palette: RankingShop) -> None:
    palette.add_plan("gone", "red", "blue")
    ref = rank.resolve_ranker(None)
    scope = Scope(ref.model_version_id)
    job_id = palette.submit()
    report = rank.rank_plans(ref, ["gone", "p", "never was"], scope, job_id=job_id, should_stop=lambda: False)
    assert report.ranked == 2
    with connect() as connection:
        delete_plans(connection, ["gone"])
        delete_items(connection, ["red"])
    with connect() as connection:
        report.write(connection)
    assert palette.state("gone") is None
    assert palette.ranking("p")[0][1] == "purple"
    assert palette.run().done == 1  # the plan is due: a candidate left


def test_of_two_rankings_at_once_the_one_that_read_last_stays(palette: RankingShop) -> None:
    ref = rank.resolve_ranker(None)
    scope = Scope(ref.model_version_id)
    slow = rank.rank_plans(ref, ["p"], scope, job_id=palette.submit(), should_stop=lambda: False)
    palette.add_plan("p", "blue sale", "red", "blue")
    assert palette.run(plan_ids=["p"]).done == 1
    with connect() as connection:
        slow.write(connection)
        slow.write(connection)  # as after a commit in doubt
    assert [item for _, item, _ in palette.ranking("p")] == ["blue", "red"]
    assert slow.counters["top_changed"] == 0


def test_without_a_ranker_the_nightly_job_has_nothing_to_do_and_others_are_told(palette: RankingShop) -> None:
    with connect() as connection:
        connection.execute(delete(ModelRole).where(ModelRole.role == "plan_ranker"))
    job = palette.run()
    assert (job.state, job.total) == ("succeeded", 0)
    assert "No model serves the role plan_ranker, so no plan was ranked" in job.sentence()
    for params in ({"plan_ids": ["p"]}, {"scope": "all"}):
        job = palette.run(**params)
        assert job.state == "failed"
        assert "No model serves the role plan_ranker" in str(job.error)
    assert palette.run(model="ranker:1").done == 1


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"plan_ids": ["p", "nope", "neither"]}, "Plan 'nope' and 1 more is not in the catalogue"),
        ({"model": "encoder:1"}, "encoder:1 is of the kind image_encoder, not plan_ranker"),
        ({"model": "ranker:9"}, "There is no model version ranker:9"),
        ({"undated": "2026-02-30"}, "The date '2026-02-30' of 'plans without a date' is no day: write YYYY-MM-DD"),
    ],
)
def test_a_mistake_ends_the_job_with_one_line(palette: RankingShop, params: dict[str, object], words: str) -> None:
    job = palette.run(**params)
    assert job.state == "failed"
    assert words in str(job.error)
    assert count(PlanRankingState) == 0


def test_named_plans_are_ranked_changed_or_not_and_a_few_of_them_urgently(palette: RankingShop) -> None:
    assert not palette.run().urgent
    job = palette.run(plan_ids=["p", "p"])
    assert (job.urgent, job.total, job.done) == (True, 1, 1)
    assert not palette.run(plan_ids=["p"], urgent=False).urgent
    assert palette.run(scope="all", urgent=True).urgent


def test_groups_hold_few_candidates_or_one_plan(palette: RankingShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LARGEST_GROUP", 3)
    for name, members in (("one", ["red"]), ("two", ["red", "blue"]), ("none", [])):
        palette.add_plan(name, "red", *members)
    scope = Scope(rank.resolve_ranker(None).model_version_id)
    groups = store.in_groups(scope, ["one", "two", "p", "none", "one"])
    assert groups == [["one", "two"], ["p"], ["none", "one"]]
