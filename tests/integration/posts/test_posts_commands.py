"""shopvision posts: bring posts in, count, export, and take decisions in."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from shopvision.database import connect
from shopvision.fashion.pair_file import read_training_pairs
from shopvision.fashion.posts.reviews import import_reviews
from shopvision.fashion.posts.tables import LabelledPost, Post, TrainingPair, TrainingPairReview
from shopvision.models import activate
from tests.conftest import Run
from tests.integration.posts.post_shop import PostShop, add_version, pairs
from worker.retention import prune


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "posts")


def test_from_a_file_of_posts_to_one_of_pairs(shop: PostShop, tmp_path: Path, run: Run) -> None:
    records = [shop.post("p1", "top", "bag", seed=1), {"post_id": "bare", "photo": "p1.png"}]
    path = shop.file(*records)
    status, out, _ = run("import", path, "--json")
    assert (status, json.loads(out)) == (0, {"rows": 2, "written": 2, "unchanged": 0, "refused": 0, "errors": []})
    broken = {"post_id": "p2", "products": []}
    status, out, err = run("import", shop.file(*records, broken))
    assert (status, out.strip()) == (1, "3 rows, 0 written, 2 unchanged, 1 refused")
    assert f"Row 3 of {path}: no photo; give the address of the post's photo." in " ".join(err.split())
    assert shop.run().done == 2

    assert json.loads(run("counts", "--json")[1]) == {
        "detector": "detector:1", "classifier": "classifier:1", "posts": {"kept": 1, "no_products": 1},
        "pairs": {"kept": 2},
    }  # fmt: skip
    told = run("counts")[1]
    assert "no_products" in told
    assert "50.0%" in told
    for suffix in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"pairs.{suffix}"
        status, out, _ = run("export", "--output", output, "--json")
        assert (status, json.loads(out)["pairs"]) == (0, 2)
        (bag, top) = read_training_pairs(output)
        assert (bag.product_id, bag.category, bag.post_id, bag.anchor_box) == ("bag", "bag", "p1", (30, 20, 50, 40))
        assert (top.anchor, top.positive) == ((shop.folder / "p1.png").as_uri(), (shop.folder / "top.png").as_uri())
    status, _, err = run("export", "--output", tmp_path / "pairs.txt")
    assert (status, "Name it .jsonl, .csv or .parquet" in err) == (1, True)


def test_decisions_are_refused_line_by_line(shop: PostShop, tmp_path: Path, run: Run) -> None:
    shop.label(shop.post("p1", "top", "bag", seed=1), shop.post("p2", "top", seed=2))
    path = tmp_path / "decisions.csv"
    path.write_text(
        "post_id,product_id,verdict,reviewer\np1,top,wrong,\np1,nobody,wrong,\np1,bag,,\np2,top,wrong,Kim\n"
        "p2,top,right,\n,top,wrong,\np1,bag,maybe,\n"
    )
    status, out, err = run("review", path, "--reviewer", "Lee")
    assert (status, out.strip()) == (1, "7 rows, 1 written, 0 unchanged, 1 undecided, 5 refused")
    lines = [line.partition("decisions.csv: ")[2] for line in err.splitlines()]
    assert lines[0] == "line 3: post 'p1' has no pair with product 'nobody'; correct the ids."
    assert lines[3] == "line 7: post_id is empty; name both."
    assert "write wrong or right" in lines[4]
    with connect() as connection:
        assert connection.execute(select(TrainingPairReview.reviewer, TrainingPairReview.verdict)).one() == (
            "Lee", "wrong",
        )  # fmt: skip
    assert import_reviews(path, reviewer="Lee").unchanged == 1
    assert pairs() == {("p1", "top"): "person", ("p1", "bag"): "kept", ("p2", "top"): "kept"}
    shop.run(scope="all")
    assert pairs()["p1", "top"] == "person"
    path.write_text("post_id,product_id,verdict\np1,top,right\n")
    assert import_reviews(path).written == 1
    assert pairs()["p1", "top"] == "kept"
    # A rule stands: a pair without a garment cannot be right.
    shop.label(shop.post("p1", "bag", seed=1) | {"products": shop.thumbnails("top", "bag")}, scope="all")
    assert import_reviews(path).unchanged == 1
    assert pairs()["p1", "top"] == "not_in_photo"


def test_a_decision_outlives_its_post(shop: PostShop, tmp_path: Path) -> None:
    record = shop.post("p1", "top", seed=1)
    shop.label(record)
    path = tmp_path / "decisions.csv"
    path.write_text("post_id,product_id,verdict\np1,top,wrong\n")
    assert import_reviews(path).written == 1
    with connect() as connection:
        connection.execute(text("DELETE FROM posts"))
        assert connection.scalar(select(func.count()).select_from(TrainingPair)) == 0
    shop.label(record)
    assert pairs() == {("p1", "top"): "person"}


def test_a_decision_about_a_pair_that_is_gone_for_a_while_holds(shop: PostShop, tmp_path: Path) -> None:
    record = shop.post("p1", "top", seed=1)
    shop.label(record)
    shop.label(record, rules={"smallest_garment": 5_000})
    assert pairs() == {}
    path = tmp_path / "decisions.csv"
    path.write_text("post_id,product_id,verdict\np1,top,wrong\n")
    assert import_reviews(path).written == 1
    shop.label(record)
    assert pairs() == {("p1", "top"): "person"}


def test_only_what_superseded_models_made_long_ago_goes(shop: PostShop) -> None:
    shop.label(shop.post("p1", "top", seed=1))
    for role, name in (("fashion_detector", "d"), ("thumbnail_classifier", "c")):
        for number in (1, 2):  # the first one's way back, and then no more
            spec = add_version(f"{name}{number}", role)
            shop.models[spec] = shop.models["detector:1" if name == "d" else "classifier:1"]
            activate(role, spec)
    shop.run()
    assert prune()["labelled_posts"] == 0
    with connect() as connection:
        connection.execute(update(LabelledPost).values(labelled_at=func.now() - timedelta(days=31)))
    assert prune()["labelled_posts"] == 1
    with connect() as connection:
        assert connection.scalar(select(func.count()).select_from(TrainingPair)) == 1
        assert connection.scalar(select(func.count()).select_from(Post)) == 1
