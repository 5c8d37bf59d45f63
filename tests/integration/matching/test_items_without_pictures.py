"""An item without a picture is legal: whatever meets one does its work, or says in one line what it lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shopvision.catalogue import upsert_items, upsert_plans
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.index.publish import publish
from shopvision.items.item import Item
from shopvision.matching.fitting.error_page import write_error_page
from shopvision.matching.fitting.evaluate import evaluate_matcher
from shopvision.matching.groups.export import export_groups, export_scores
from shopvision.matching.groups.page import matching_page
from shopvision.matching.groups.page import write_report as write_groups
from shopvision.matching.groups.reviews import reviewed_pairs
from shopvision.matching.scoring.combined_scorer import CombinedScorer
from shopvision.matching.scoring.predict import Floats, Rows
from shopvision.models import activate
from shopvision.search import VisualSearch
from shopvision.search.report import find_neighbours
from shopvision.selection import store as ranking_store
from shopvision.settings import get_settings
from shopvision.storage import open_store
from tests.conftest import Run
from tests.integration.index.catalogue import make_model
from tests.integration.matching.scoring_shop import PictureTower, ScoringShop, WordScorer, WordTower, add_scorer
from tests.integration.selection.conftest import add_model
from tests.unit.matching.pair_world import GivenScorer, table_of
from worker.ledger import jobs
from worker.ledger.progress import job_progress, list_failures

TITLE = "Acme drill DX100 cordless 18V"


class Illustrated(PictureTower):
    """Reads words and, as far as there are any, pictures."""

    needs_text = True

    def check(self, item: Item) -> None:
        WordScorer.check(self, item)


class Together(CombinedScorer):
    """The mean of its members."""

    def __init__(self, *members: WordScorer) -> None:
        super().__init__(members)
        self.card = members[0].card

    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: Any
    ) -> Floats:
        parts = [
            self._score_by(number, items, left, right, vectors=vectors, should_stop=should_stop)
            for number in range(len(self.members))
        ]
        result: NDArray[np.float32] = np.mean(parts, axis=0)
        return result


@pytest.fixture
def shop(bare_shop: ScoringShop) -> ScoringShop:
    """Four items alike, of which two have no picture."""
    Image.new("RGB", (8, 8), (250, 0, 0)).save(bare_shop.folder / "red.png")
    red = (bare_shop.folder / "red.png").as_uri()
    with connect() as connection:
        upsert_items(
            connection,
            [{"item_id": name, "title": TITLE, "category": "Drills", "images": [red]} for name in "ab"]
            + [{"item_id": name, "title": TITLE, "category": "Drills"} for name in "yz"],
        )
    return bare_shop


@pytest.mark.parametrize(
    ("make", "failed"),
    [
        (WordScorer, {}),
        (WordTower, {}),
        (Illustrated, {}),
        (PictureTower, {'["a","y"]': "no_picture", '["y","z"]': "no_picture"}),
        (lambda: Together(WordScorer(), PictureTower()), {'["a","y"]': "no_picture", '["y","z"]': "no_picture"}),
        (lambda: Together(WordScorer(), Illustrated()), {}),
    ],
    ids=["text one-tower", "text two-tower", "text and picture", "picture", "ensemble with picture", "ensemble"],
)
def test_pairs_are_scored_or_fail_one_by_one(
    shop: ScoringShop, make: Callable[[], Any], failed: dict[str, str]
) -> None:
    spec = add_scorer("tried")
    shop.models[spec] = make()
    (shop.folder / "pairs.csv").write_text("left_id,right_id\na,b\na,y\ny,z\n")
    job = shop.run(pairs_file=str(shop.folder / "pairs.csv"), model=spec)
    assert (job.state, job.done, job.failed) == ("succeeded", 3 - len(failed), len(failed))
    failures = list_failures(job.job_id, limit=10)
    assert {failure["item_key"]: failure["code"] for failure in failures} == failed
    assert all("has no picture" in failure["message"] for failure in failures)


def test_blocking_finds_them_and_a_night_over_them_succeeds(shop: ScoringShop) -> None:
    activate("pair_blocker", add_scorer("looks", tower=True))
    shop.models["looks:1"] = PictureTower()
    first = shop.run()
    assert (first.state, set(shop.scores())) == (
        "succeeded", {(left, right) for left in "abyz" for right in "abyz" if left < right}
    )  # fmt: skip
    codes = {(failure["item_key"], failure["code"]) for failure in list_failures(first.job_id, limit=10)}
    assert codes == {("y", "no_picture"), ("z", "no_picture")}
    again = shop.run()
    assert (again.state, again.failed, again.total) == ("succeeded", 0, 0)


def test_pages_exports_and_labelled_pairs_hold_them(shop: ScoringShop, tmp_path: Path) -> None:
    job = shop.run()
    version = 1
    page = matching_page(version, job.job_id)
    assert [[item.item_id for item in group.items] for group in page.groups] == [[*"abyz"]]
    write_groups(tmp_path / "groups.html", page)
    assert export_scores(tmp_path / "scores.csv") == 6
    assert export_groups(tmp_path / "groups.parquet") == 4
    with connect() as connection:
        connection.exec_driver_sql("INSERT INTO pair_reviews VALUES ('y', 'z', 'same', NULL, NULL, now())")
        labelled = reviewed_pairs(connection)
    assert [item.picture for item in labelled.items] == ["", ""]
    report = evaluate_matcher(GivenScorer({("y", "z"): 0.9}), labelled, resamples=0)
    with PictureDoor(get_settings()) as door:
        write_error_page(tmp_path / "errors.html", report, door)


def test_measuring_a_model_of_pictures_leaves_them_out_and_counts_them(shop: ScoringShop) -> None:
    red = (shop.folder / "red.png").as_uri()
    items = [Item("a", TITLE, picture=red), Item("b", TITLE, picture=red), Item("y", TITLE), Item("z", TITLE)]
    scorer = PictureTower()
    scorer.card.thresholds["decision"] = 0.5
    with PictureDoor(get_settings()) as door:
        report = evaluate_matcher(scorer, table_of(items, [(0, 1, 1), (0, 2, 1), (2, 3, 1)]), door=door, resamples=0)
        assert report.unreadable == 2
        with pytest.raises(UserError, match="Not one of 1 pairs has two items that the model can read"):
            evaluate_matcher(scorer, table_of(items, [(2, 3, 1)]), door=door, resamples=0)


def test_a_refresh_has_nothing_to_do_for_them(shop: ScoringShop) -> None:
    activate("catalogue_encoder", add_model("encoder", "image_encoder"))
    shop.models["encoder:1"] = PictureTower()
    with connect() as connection:
        job_id = jobs.submit(connection, "refresh_embeddings", {"item_ids": ["y", "z"]})
    shop.work()
    job = job_progress(job_id)
    assert (job.state, job.total, job.failed, job.result) == (
        "succeeded", 0, 0,
        {"published": False, "reason": "There is no vector of encoder:1 yet: import a catalogue first."},
    )  # fmt: skip


def test_search_says_what_is_missing(shop: ScoringShop) -> None:
    encoder = make_model("encoder", "1")
    with connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO embeddings (model_version_id, image_id, image_sha256, source_fingerprint, vector) "
            f"SELECT {encoder.model_version_id}, image_id, '\\x01', '', '\\x003c00000000' FROM item_images"
        )
    publish(get_settings().index_name, encoder, open_store())
    shop.models[encoder.spec] = PictureTower()
    assert [hit.item_id for hit in VisualSearch().by_item("a").items] == ["b"]
    with pytest.raises(UserError, match="Item 'y' has no picture in the index: check the id, give the item a picture"):
        VisualSearch().by_item("y")
    assert {row.item.item_id for row in find_neighbours(10, 2)} == {"a", "b"}


def test_a_plan_of_them_has_no_candidates(shop: ScoringShop) -> None:
    with connect() as connection:
        upsert_plans(connection, [{"plan_id": "p", "name": "Drills", "member_item_ids": ["y", "z"]}])
    [plan] = ranking_store.read_inputs(ranking_store.Scope(1), ["p"])
    assert (plan.candidates, plan.image_ids.tolist(), plan.without_vector) == (0, [], [])


def test_the_catalogue_shows_them(shop: ScoringShop, command_line: Run) -> None:
    status, out, _ = command_line("catalogue", "show", "y")
    assert (status, TITLE in " ".join(out.split())) == (0, True)
    assert json.loads(command_line("catalogue", "show", "y", "--json")[1])["images"] == []
    status, _, err = command_line("catalogue", "show", "\udce9")
    assert (status, err.count("\n"), "is no valid UTF-8" in err) == (1, 1, True)
