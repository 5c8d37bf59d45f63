"""select_images on real Postgres, from submission to pictures, with the runner called directly."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, text, update

from shopvision.catalogue import delete_items
from shopvision.database import connect
from shopvision.models import activate
from shopvision.models.tables import ModelRole
from shopvision.selection.item_pictures import selecting
from shopvision.selection.item_pictures.tables import ImageSelectionState
from tests.conftest import Run
from tests.integration.selection.item_shop import LEAST, ItemShop, add_version, open_shop
from worker.ledger.progress import list_failures
from worker.ledger.running_step import RunningStep
from worker.retention import prune

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
WINE, PINK, OLIVE, ORANGE = (120, 0, 30), (250, 60, 90), (100, 90, 0), (250, 100, 0)


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> ItemShop:
    return open_shop(tmp_path, monkeypatch, set_environment)


@pytest.fixture
def wardrobe(shop: ItemShop) -> ItemShop:
    shop.add("tee", "a red tee", BLUE, WINE, RED, category="Tops")
    shop.add("skirt", "a green skirt", GREEN, OLIVE, category="Skirts")
    shop.add("scarf", "a red scarf", PINK, category="Tops")
    shop.add("bag", "a red bag", category="Bags")
    return shop


def cosine(colour: tuple[int, int, int], axis: int) -> float:
    values = np.array(colour, np.float64) + 1
    return float(values[axis] / np.linalg.norm(values))


def test_pictures_are_ordered_by_how_well_they_show_the_text(wardrobe: ItemShop) -> None:
    job = wardrobe.select()
    assert (job.state, job.error, job.total, job.done, job.failed) == ("succeeded", None, 3, 3, 0)
    pictures = wardrobe.selected("tee")
    assert [(one.rank, one.name, one.source, one.click_score) for one in pictures] == [
        (1, "tee-2", "own", None), (2, "tee-1", "own", None), (3, "tee-0", "own", None),
    ]  # fmt: skip
    expected = [cosine(colour, 0) for colour in (RED, WINE, BLUE)]
    np.testing.assert_allclose([one.recall_score for one in pictures], expected, atol=1e-3)
    assert job.result == {
        "recall": "recall:1", "ranker": None, "method": "image_recall", "items": 3, "failed": 0, "candidates": 6,
        "found": 0, "repeated": 0, "unreadable": 0, "embedded": 6, "shared": 0, "top_changed": 0,
    }  # fmt: skip
    state = wardrobe.selection_state("tee")
    assert (state.recall_text, state.candidates, state.top_image_id) == ("a red tee", 3, wardrobe.image("tee", 2))
    assert wardrobe.selection_state("bag") is None  # it has no pictures, and nobody looks elsewhere


def test_a_ranker_orders_them_by_clicks_and_both_scores_are_kept(wardrobe: ItemShop) -> None:
    wardrobe.select()
    activate("image_ranker", add_version("clicks", "image_ranker"))
    job = wardrobe.select()
    assert job.result is not None
    assert (job.result["method"], job.result["ranker"], job.done) == ("image_ranker", "clicks:1", 3)
    pictures = wardrobe.selected("tee", "clicks")
    assert [one.name for one in pictures] == ["tee-1", "tee-0", "tee-2"]  # of equal ones the leading one
    assert pictures[0].click_score > pictures[1].click_score == pytest.approx(pictures[2].click_score)
    assert pictures[0].recall_score == pytest.approx(cosine(WINE, 0), abs=1e-3)
    assert wardrobe.names("tee") == ["tee-2", "tee-1", "tee-0"]  # those of before stand beside them
    assert wardrobe.clicks.seen == wardrobe.recall.seen == 6


def test_a_ranker_that_reads_the_recall_models_vectors_embeds_nothing(wardrobe: ItemShop) -> None:
    class Red(type(wardrobe.clicks)):  # type: ignore[misc]
        dimension = 3

        def scores_of_items(self, pictures, contexts):  # type: ignore[no-untyped-def]
            return [-vectors[:, 0] for vectors in pictures]

    wardrobe.models["clicks:1"] = ranker = Red()
    activate("image_ranker", add_version("clicks", "image_ranker", arguments={"recall": "recall:1"}))
    wardrobe.select()
    assert wardrobe.names("tee", "clicks") == ["tee-0", "tee-1", "tee-2"]
    assert (ranker.seen, wardrobe.recall.seen) == (0, 6)
    activate("image_recall", add_version("other", "image_recall"))
    job = wardrobe.select()
    assert job.state == "failed"
    assert "clicks:1 reads vectors of recall:1, not of other:1" in str(job.error)


def test_an_unchanged_item_is_left_alone_and_what_makes_it_due(wardrobe: ItemShop) -> None:
    wardrobe.select()
    assert wardrobe.select().total == 0
    for path in wardrobe.folder.iterdir():
        path.unlink()  # not even looked at
    with connect() as connection:
        connection.execute(text("UPDATE items SET title = 'a blue tee', content_hash = 'x' WHERE item_id = 'tee'"))
    seen = wardrobe.recall.seen
    job = wardrobe.select()
    assert (job.total, job.counters["top_changed"], wardrobe.recall.seen) == (1, 1, seen)
    state = wardrobe.selection_state("tee")
    assert (wardrobe.names("tee")[0], state.previous_top_image_id) == ("tee-0", wardrobe.image("tee", 2))
    assert state.top_changed_at == state.selected_at
    assert wardrobe.select(top_k=2).total == 3
    assert len(wardrobe.names("tee")) == 2
    assert wardrobe.select(scope="all", top_k=2).total == 3
    assert wardrobe.select(item_ids=["tee"], top_k=2).total == 1
    assert wardrobe.select(top_k=2).total == 0


def test_the_library_gives_what_shows_the_text_the_own_category_first(wardrobe: ItemShop) -> None:
    wardrobe.add("copy", "another red tee", RED, category="Shoes")
    wardrobe.add("boot", "a boot", ORANGE, category="Shoes")
    assert wardrobe.publish().result["published"] is True  # type: ignore[index]
    job = wardrobe.select(library=True)
    assert (job.state, job.error) == ("succeeded", None)
    bag = wardrobe.selected("bag")
    assert [(one.name, one.source) for one in bag] == [
        ("tee-2", "library"), ("tee-1", "library"), ("boot-0", "library"), ("scarf-0", "library"),
    ]  # fmt: skip
    assert all(one.recall_score >= LEAST for one in bag)
    assert bag[0].stands_for == [wardrobe.image("copy")]  # equal bytes are shown once
    scarf = wardrobe.selected("scarf")
    assert {one.name: one.source for one in scarf} == {
        "scarf-0": "own", "tee-2": "category", "tee-1": "category", "boot-0": "library",
    }  # fmt: skip
    few = {one.name: one.source for one in (wardrobe.select(library=True, most_found=2), wardrobe.selected("scarf"))[1]}
    assert set(few) == {"scarf-0", "tee-2", "tee-1"}
    state = wardrobe.selection_state("bag")
    assert (state.candidates, state.found, state.repeated) == (2, 2, 1)
    assert wardrobe.select(library=True, most_found=2).total == 0
    wardrobe.add("cap", "a red cap", (250, 30, 0))
    wardrobe.publish()
    assert wardrobe.select(library=True, most_found=2).total == 7  # each may now find it
    assert wardrobe.names("cap")[0] == "cap-0"  # nearly the same as that of the tee, and its own


def test_an_items_own_picture_is_shown_and_not_its_copy(wardrobe: ItemShop) -> None:
    wardrobe.add("copy", "another red tee", RED)
    wardrobe.publish()
    wardrobe.select(library=True, item_ids=["copy"])
    assert wardrobe.names("copy")[0] == "copy-0"
    assert "tee-2" not in wardrobe.names("copy")


def test_near_and_exact_copies_of_an_item_are_shown_once(shop: ItemShop) -> None:
    shop.add("tee", "a red tee", RED, RED, (250, 4, 0), BLUE)
    job = shop.select()
    first, last = shop.selected("tee")
    assert (first.name, last.name) == ("tee-0", "tee-3")
    assert first.stands_for == [shop.image("tee", 1), shop.image("tee", 2)]
    assert job.counters["repeated"] == 2
    shop.select(nearly_same=1.0)
    assert shop.names("tee") == ["tee-0", "tee-2", "tee-3"]


def test_items_that_cannot_be_looked_at_fail_one_by_one(shop: ItemShop) -> None:
    shop.add("good", "red", RED)
    shop.add("half", "red", RED, GREEN)
    (shop.folder / "half-1.png").unlink()
    shop.add("gone", "red", BLUE)
    (shop.folder / "gone-0.png").write_bytes(b"<html>")
    shop.add("dumb", "", GREEN)
    shop.add("bare", "red")
    job = shop.select(item_ids=["good", "half", "gone", "dumb", "bare"])
    assert (job.state, job.done, job.failed) == ("succeeded", 2, 3)
    failures = {one["item_key"]: (one["code"], one["message"]) for one in list_failures(job.job_id, limit=9)}
    assert {name: code for name, (code, _) in failures.items()} == {
        "gone": "no_readable_candidates", "dumb": "no_text", "bare": "no_candidates",
    }  # fmt: skip
    assert "the first: html" in failures["gone"][1]
    state = shop.selection_state("half")
    assert (state.candidates, state.unreadable) == (2, 1)
    assert state.unreadable_pictures[0]["code"] == "not_found"
    assert shop.select().total == 0
    with connect() as connection:
        connection.execute(text("DELETE FROM item_images WHERE item_id = 'good'"))
    assert shop.select().failed == 1
    assert (shop.names("good"), shop.selection_state("good").top_image_id) == ([], None)
    assert shop.select().total == 0


def test_a_stopped_chunk_hands_back_the_rest(wardrobe: ItemShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "ITEMS_AT_ONCE", 1)
    monkeypatch.setattr(RunningStep, "should_stop", lambda self: True)
    job = wardrobe.select()
    assert (job.state, job.done, job.counters["candidates"], wardrobe.recall.seen) == ("succeeded", 3, 6, 6)


def test_without_a_recall_model_the_nightly_job_has_nothing_to_do_and_others_are_told(wardrobe: ItemShop) -> None:
    with connect() as connection:
        connection.execute(delete(ModelRole).where(ModelRole.role == "image_recall"))
    job = wardrobe.select()
    assert (job.state, job.total) == ("succeeded", 0)
    assert "No model serves the role image_recall, so no picture was selected" in job.sentence()
    assert "No model serves the role image_recall" in str(wardrobe.select(scope="all").error)
    refresh = wardrobe.publish()
    assert (refresh.state, refresh.total) == ("succeeded", 0)
    assert "No model serves the role image_recall" in str(refresh.result)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"item_ids": ["tee", "nope"]}, "Item 'nope' is not in the catalogue"),
        ({"recall": "encoder:1"}, "encoder:1 is of the kind image_encoder, not image_recall"),
        ({"ranker": "recall:1"}, "recall:1 is of the kind image_recall, not image_ranker"),
        ({"library": True}, "role=image_recall --wait` does it"),
        ({"library": True, "recall": "raw:1"}, "raw:1 has no calibrated score"),
    ],
)
def test_a_mistake_ends_the_job_with_one_line(wardrobe: ItemShop, params: dict[str, object], words: str) -> None:
    add_version("raw", "image_recall")
    job = wardrobe.select(**params)
    assert job.state == "failed"
    assert words in str(job.error)
    assert "\n" not in str(job.error)


def test_an_index_of_another_model_is_told(wardrobe: ItemShop) -> None:
    wardrobe.publish()
    wardrobe.models["second:1"] = wardrobe.recall
    activate("image_recall", add_version("second", "image_recall", thresholds={"score": 0.5}))
    job = wardrobe.select(library=True)
    assert "'catalogue-text' holds vectors of recall:1, not of second:1" in str(job.error)
    assert wardrobe.publish().result["published"] is True  # type: ignore[index]
    assert wardrobe.select(library=True).state == "succeeded"


def test_a_deleted_item_takes_its_selection_along_and_superseded_ones_are_pruned(wardrobe: ItemShop) -> None:
    wardrobe.select()
    with connect() as connection:
        delete_items(connection, ["tee"])
    assert wardrobe.selection_state("tee") is None
    with connect() as connection:
        connection.execute(update(ImageSelectionState).values(selected_at=text("now() - interval '31 days'")))
    assert prune()["image_selection_states"] == 0
    with connect() as connection:
        connection.execute(delete(ModelRole).where(ModelRole.role == "image_recall"))
    assert prune()["image_selection_states"] == 2


def test_what_the_catalogues_encoder_saw_anew_is_embedded_anew_for_texts(wardrobe: ItemShop) -> None:
    wardrobe.publish()
    wardrobe.paint("skirt-0", RED)
    wardrobe.refreshed("skirt", b"newer bytes", regions=(1,))
    seen = wardrobe.recall.seen
    job = wardrobe.publish(verify=False)
    assert (job.total, wardrobe.recall.seen) == (1, seen)  # the bytes of a red one are known
    assert job.result is not None
    assert job.result["published"] is True
    assert wardrobe.publish(verify=False).total == 0


def test_shown_exported_and_as_a_page(wardrobe: ItemShop, tmp_path: Path, command_line: Run) -> None:
    run = partial(command_line, "selections")
    status, _, err = run("report", "--latest")
    assert (status, "No picture has been selected yet" in err) == (1, True)
    wardrobe.add("evil", "red </script><script>document.title='taken'</script>", RED)
    wardrobe.publish()
    wardrobe.select(library=True)
    with connect() as connection:
        connection.execute(text("UPDATE items SET title = 'a blue tee', content_hash = 'x' WHERE item_id = 'tee'"))
    activate("image_ranker", add_version("clicks", "image_ranker"))
    wardrobe.select(library=True)
    status, out, _ = run("show", "tee", "--json")
    (by_clicks, by_text) = json.loads(out)["selections"]
    assert (status, by_clicks["model"], by_text["model"], by_text["text"]) == (0, "clicks:1", "recall:1", "a red tee")
    assert by_clicks["pictures"][0]["click_score"] is not None
    status, out, _ = run("show", "tee")
    assert (status, "clicks:1 over recall:1" in out) == (0, True)
    for item, words in (("nope", "There is no item 'nope'"), ("none", "No picture was selected for item 'none'")):
        wardrobe.add("none", "")
        assert words in " ".join(run("show", item)[2].split())
    output = tmp_path / "pictures.csv"
    status, out, _ = run("export", "--output", output, "--json")
    lines = output.read_text().splitlines()
    assert (status, json.loads(out)["pictures"]) == (0, len(lines) - 1)
    assert lines[0].startswith("item_id,rank,image_id,uri,source,from_item_id,recall_score,click_score")
    page = tmp_path / "page.html"
    status, out, _ = run("report", "--latest", "--output", page, "--json")
    assert (status, json.loads(out)["items"]) == (0, 5)
    shown = page.read_text()
    for words in ("expected clicks", "shows the words", "found in the library", "of the same category", "clicks:1"):
        assert words in shown, words
    assert "<script>document.title" not in shown
