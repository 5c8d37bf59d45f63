"""What people decided holds whatever happens afterwards: from one job to the next, on real Postgres."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from shopvision.catalogue import delete_items
from shopvision.database import connect
from shopvision.matching.groups.export import export_groups, export_scores
from shopvision.matching.groups.reviews import import_reviews
from shopvision.matching.tables import PairReview, PairScore
from shopvision.models import activate
from tests.integration.matching.scoring_shop import TITLES, ScoringShop, add_scorer

DECIDED = {("a", "b"): "different", ("c", "z"): "same"}  # the model says the opposite of both


def run_again(shop: ScoringShop) -> None:
    shop.run()


def run_over_all(shop: ScoringShop) -> None:
    shop.run(scope="all")


def serve_another_model(shop: ScoringShop) -> None:
    shop.models[add_scorer("second")] = shop.scorer
    activate("pair_scorer", "second:1")
    shop.run()


def ask_other_thresholds(shop: ScoringShop) -> None:
    shop.run(scope="all", thresholds={"same": 0.1, "different": 0.05})


def import_the_catalogue_again(shop: ScoringShop) -> None:
    for item_id, title in TITLES.items():
        shop.put(item_id, title)
    shop.run()


def import_changed_items(shop: ScoringShop) -> None:
    shop.put("a", TITLES["b"])  # to the model as equal as can be
    shop.put("z", TITLES["z"], price=5)
    shop.run()


def take_items_out_and_in_again(shop: ScoringShop) -> None:
    with connect() as connection:
        delete_items(connection, ["a", "z"])
    shop.run()
    for item_id in ("a", "z"):
        shop.put(item_id, TITLES[item_id])
    shop.run()


def lose_the_scores(shop: ScoringShop) -> None:
    with connect() as connection:
        connection.execute(delete(PairScore))
    shop.run(scope="all")


@pytest.mark.parametrize(
    "happening",
    [
        run_again, run_over_all, serve_another_model, ask_other_thresholds, import_the_catalogue_again,
        import_changed_items, take_items_out_and_in_again, lose_the_scores,
    ],
    ids=lambda happening: happening.__name__,
)  # fmt: skip
def test_a_reviewed_verdict_survives(
    shop: ScoringShop, tmp_path: Path, happening: Callable[[ScoringShop], None]
) -> None:
    shop.run()
    decisions = tmp_path / "decisions.csv"
    rows = [f"{left},{right},{verdict},me" for (left, right), verdict in DECIDED.items()]
    decisions.write_text("\n".join(["left_item_id,right_item_id,verdict,reviewer", *rows]) + "\n")
    assert import_reviews(decisions).written == 2
    happening(shop)
    with connect() as connection:
        columns = PairReview.left_item_id, PairReview.right_item_id, PairReview.verdict, PairReview.reviewer
        stored = {tuple(row) for row in connection.execute(select(*columns))}
    assert stored == {(*pair, verdict, "me") for pair, verdict in DECIDED.items()}
    export_groups(tmp_path / "groups.jsonl")
    groups: dict[str, set[str]] = {}
    for line in (tmp_path / "groups.jsonl").read_text().splitlines():
        row = json.loads(line)
        groups.setdefault(row["group_id"], set()).add(row["item_id"])
    assert [sorted(group) for group in groups.values() if {"a", "b"} <= group] == []
    assert [sorted(group) for group in groups.values() if {"c", "z"} <= group] != []
    export_scores(tmp_path / "scores.jsonl")
    told = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert {row["verdict"] for row in told if (row["left_item_id"], row["right_item_id"]) == ("a", "b")} == {
        "different"
    }
    assert import_reviews(decisions).unchanged == 2
