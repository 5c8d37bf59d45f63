"""The pictures that rank_plans reads: each embedded once, kept, and embedded anew when it has changed."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.images.outcome import Failed
from shopvision.index.tables import Embedding, IndexChange
from shopvision.models.tables import ModelRole
from shopvision.selection import candidate_vectors, results, store
from shopvision.selection import job as rank
from shopvision.selection.outcomes import plan_outcome
from shopvision.selection.picture_vectors import stale_pictures
from shopvision.selection.store import Scope
from tests.integration.selection.conftest import (
    RED,
    RankingShop,
    count,
    unit,
)
from worker.ledger.running_step import RunningStep


def test_a_picture_is_embedded_once_in_however_many_plans_it_is(palette: RankingShop) -> None:
    for number in range(20):
        palette.add_plan(f"plan-{number}", "green", "green", "red", "olive")
    job = palette.run()
    assert (job.done, palette.seen) == (21, 6)
    palette.add_plan("new", "green", "green", "red", "olive")
    assert palette.run().done == 1
    assert palette.seen == 6


def test_equal_bytes_share_a_vector(shop: RankingShop) -> None:
    for name in ("a", "b", "c"):
        shop.add_item(name, RED)
        shop.refreshed(name, hashlib.sha256((shop.folder / f"{name}-0.png").read_bytes()).digest())
    shop.add_plan("p", "red", "a", "b")
    job = shop.run()
    assert (shop.seen, job.counters["embedded"], job.counters["shared"]) == (1, 1, 1)
    (shop.folder / "c-0.png").unlink()
    shop.add_plan("p", "red", "a", "b", "c")
    job = shop.run()
    assert (shop.seen, job.counters["embedded"], job.counters["shared"]) == (1, 0, 1)
    assert len({score for _, _, score in shop.ranking("p")}) == 1
    assert [item for _, item, _ in shop.ranking("p")] == ["a", "b", "c"]


def test_a_picture_of_which_several_regions_were_embedded_is_one_candidate(shop: RankingShop) -> None:
    for name, regions in (("a", (0, 1, 2)), ("b", (2, 3)), ("c", (0,))):
        shop.add_item(name, RED)
        shop.refreshed(name, hashlib.sha256((shop.folder / f"{name}-0.png").read_bytes()).digest(), regions=regions)
    shop.add_plan("p", "red", "a", "b", "c")
    job = shop.run()
    assert (job.result["candidates"], job.counters["embedded"], job.counters["shared"]) == (3, 1, 2)
    assert [item for _, item, _ in shop.ranking("p")] == ["a", "b", "c"]
    assert shop.run().total == 0
    version = rank.resolve_ranker(None).model_version_id
    everything = [shop.image(name) for name in "abc"]
    assert stale_pictures(version, everything) == {}
    shop.refreshed("b", b"another", regions=(2, 3))
    assert stale_pictures(version, everything) == {shop.image("b"): b"another"}


def test_where_one_of_equal_pictures_cannot_be_read_the_other_is_embedded(shop: RankingShop) -> None:
    for name in ("a", "b"):
        shop.add_item(name, RED)
        shop.refreshed(name, hashlib.sha256((shop.folder / f"{name}-0.png").read_bytes()).digest())
    (shop.folder / "b-0.png").unlink()
    shop.add_plan("p", "red", "a", "b")
    job = shop.run()
    assert (job.done, shop.seen) == (1, 1)
    assert [item for _, item, _ in shop.ranking("p")] == ["a"]
    assert shop.state("p").unreadable == 1


def test_a_picture_that_the_catalogue_saw_change_is_embedded_anew(palette: RankingShop) -> None:
    palette.run()
    palette.paint("red-0", (0, 0, 240))
    assert palette.run().total == 0  # nobody has told
    palette.refreshed("red", hashlib.sha256((palette.folder / "red-0.png").read_bytes()).digest())
    job = palette.run()
    assert (job.total, job.counters["embedded"], palette.seen) == (1, 1, 7)
    assert palette.ranking("p")[0][1] == "purple"
    assert palette.run().total == 0


def test_unreadable_pictures_are_counted_and_named(palette: RankingShop) -> None:
    (palette.folder / "green-0.png").write_bytes(b"")
    (palette.folder / "blue-0.png").unlink()
    job = palette.run()
    assert (job.state, job.failed, job.counters["unreadable"], job.counters["candidates"]) == ("succeeded", 0, 2, 6)
    state = palette.state("p")
    assert (state.candidates, state.unreadable) == (6, 2)
    assert [(one["image_id"], one["code"]) for one in state.unreadable_pictures] == [
        (palette.image("green"), "empty"), (palette.image("blue"), "not_found"),
    ]  # fmt: skip
    assert len(palette.ranking("p")) == 4
    assert palette.run().total == 0


def test_a_source_that_is_away_is_tried_again_next_time(palette: RankingShop, monkeypatch: pytest.MonkeyPatch) -> None:
    from shopvision.errors import ItemError
    from shopvision.images.door import FetchedPicture, PictureDoor

    original = PictureDoor.fetch

    def away(self: PictureDoor, uri: str) -> FetchedPicture:
        if "green" in uri:
            raise ItemError("unavailable", "The server did not answer.")
        return original(self, uri)

    with monkeypatch.context() as patch:
        patch.setattr(PictureDoor, "fetch", away)
        assert palette.run().counters["unreadable"] == 1
    job = palette.run()
    assert (job.total, job.counters["unreadable"], job.counters["embedded"]) == (1, 0, 1)
    assert palette.run().total == 0


def test_a_stopped_chunk_keeps_its_vectors_and_hands_back_the_rest(
    shop: RankingShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        shop.add_item(f"i{number}", (number * 8, 10, 10))
    for number in range(10):
        shop.add_plan(f"p{number}", "red", *(f"i{3 * number + offset}" for offset in range(3)))
    monkeypatch.setattr(store, "LARGEST_GROUP", 6)  # two plans at once
    asked: list[int] = []

    def after_each_batch(self: RunningStep) -> bool:
        asked.append(shop.seen)
        return True

    monkeypatch.setattr(RunningStep, "should_stop", after_each_batch)
    job = shop.run()
    assert (job.state, job.done, job.counters["embedded"], job.counters["candidates"]) == ("succeeded", 10, 30, 30)
    assert shop.seen == 30  # nothing twice
    assert asked[:2] == [4, 6]
    assert len(asked) > 10


def test_what_another_process_embeds_meanwhile_is_left_out(shop: RankingShop, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [f"i{number}" for number in range(40)]
    for number, item in enumerate(items):
        shop.add_item(item, (number * 6, 10, 10))
    shop.add_plan("p", "red", *items)

    def meanwhile(self: RunningStep) -> bool:
        with connect() as connection:
            version = connection.scalars(
                select(ModelRole.model_version_id).where(ModelRole.role == "plan_ranker")
            ).one()
            for image_id in connection.scalars(select(ItemImage.image_id)).all():
                vector = unit([[1, 1, 1]]).astype("<f2").tobytes()
                row = {"image_sha256": b"", "source_fingerprint": "", "vector": vector}
                connection.execute(
                    upsert(Embedding)
                    .values(model_version_id=version, image_id=image_id, **row)
                    .on_conflict_do_nothing()
                )
        return False

    monkeypatch.setattr(RunningStep, "should_stop", meanwhile)
    job = shop.run()
    assert (job.state, job.counters["candidates"], len(shop.ranking("p"))) == ("succeeded", 40, 40)
    assert (
        shop.seen == job.counters["embedded"] == candidate_vectors.BATCHES_AHEAD * shop.ranker.image_encoder.batch_size
    )


def test_vectors_of_a_ranker_concern_no_index(palette: RankingShop) -> None:
    palette.refreshed("red", b"r" * 32)
    assert count(IndexChange) == 1
    with connect() as connection:
        connection.execute(delete(IndexChange))
    palette.run()
    with connect() as connection:
        ranker = Embedding.model_version_id == rank.resolve_ranker(None).model_version_id
        assert connection.scalar(select(func.count()).where(ranker)) == 6
        connection.execute(update(Embedding).where(ranker).values(vector=b"\0" * 6))
        connection.execute(update(Item).where(Item.item_id == "blue").values(category="Sky"))
        connection.execute(delete(Embedding).where(ranker))
    assert count(IndexChange) == 0
    with connect() as connection:
        connection.execute(update(Item).where(Item.item_id == "red").values(category="Wine"))
    assert count(IndexChange) == 1


def test_only_the_first_unreadable_pictures_are_named() -> None:
    plan = SimpleNamespace(
        plan_id="p", read_at=None, input_hash=b"h", image_ids=np.array([1]), vectors=unit([[1, 0]]).astype("<f2"),
        without_vector=[*range(2, 100)], candidates=99, found={},
    )  # fmt: skip
    failed = {number: Failed(number, "not_found", "gone") for number in range(2, 100)}
    outcome = plan_outcome(plan, lambda vectors: vectors[:, 0], failed, Scope(1))  # type: ignore[arg-type] # only these fields are read
    assert (len(outcome.unreadable), outcome.candidates, outcome.ranking[0].image_id) == (98, 99, 1)
    assert results.UNREADABLE_KEPT < 98
