"""What score_pairs may be asked for: files of pairs, parameters, and what is wrong with either."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from shopvision.errors import UserError
from shopvision.matching.tables import MatchingState
from tests.integration.matching.scoring_shop import (
    TITLES,
    ScoringShop,
    add_scorer,
    count,
    expected,
)
from worker.ledger.progress import list_failures


def test_pairs_of_a_file_and_its_broken_rows(shop: ScoringShop) -> None:
    rows = [
        {"src_item_id": "b", "tgt_item_id": "a", "item_label": "1"},
        {"left_item_id": "a", "right_item_id": "b"},
        {"left_id": "x", "right_id": "y"},
        {"left_id": "x", "right_id": "x"},
        {"left_id": "x", "right_id": "nowhere"},
        {"left_id": "ghost", "right_id": "nowhere"},
        {"left_id": "x"},
        {"left_id": "c", "right_id": "b", "left_title": "ids count"},
    ]
    path = shop.folder / "pairs.jsonl.gz"
    lines = [json.dumps(row) for row in rows]
    path.write_bytes(gzip.compress("\n".join([*lines, "{", json.dumps({"left_id": "y", "right_id": "z"})]).encode()))
    job = shop.run(pairs_file=str(path))
    assert (job.state, job.total, job.done, job.failed) == ("succeeded", 9, 4, 5)
    assert shop.scores() == expected("ab", "xy", "bc", "yz")
    assert shop.blocker.items == 0
    failures = {
        failure["item_key"]: (failure["code"], failure["message"]) for failure in list_failures(job.job_id, limit=20)
    }
    assert {key: code for key, (code, _) in failures.items()} == {
        "row 4": "same_item", "row 5": "unknown_item", "row 6": "unknown_item", "row 7": "broken_row",
        "row 9": "broken_row",
    }  # fmt: skip
    assert (
        failures["row 5"][1]
        == f"Row 5 of {path}: item 'nowhere' is not in the catalogue; import it, or leave the row out."
    )
    assert "'ghost'" in failures["row 6"][1]
    assert failures["row 4"][1].startswith(f"Row 4 of {path}: item 'x' is paired with itself")
    assert "not JSON" in failures["row 9"][1]
    assert count(MatchingState) == 0
    again = shop.run(pairs_file=path.as_uri())
    assert (again.done, again.skipped) == (4, 4)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_other_formats(shop: ScoringShop, suffix: str) -> None:
    path = shop.folder / f"pairs.{suffix}"
    if suffix == "csv":
        path.write_text("left_item_id,right_item_id\na,b\n,c\nz,y\n")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"left_item_id": ["a", None, "z"], "right_item_id": ["b", "c", "y"]}), path)
    job = shop.run(pairs_file=str(path))
    assert (job.done, job.failed) == (2, 1)
    assert shop.scores() == expected("ab", "yz")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.csv", "is outside the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS"),
        ("missing.csv", "there is no such file"),
    ],
)
def test_files_that_cannot_be_taken(shop: ScoringShop, name: str, reason: str) -> None:
    job = shop.run(pairs_file=str(shop.folder / name))
    assert job.state == "failed"
    assert reason in str(job.error)


def test_parameters_that_contradict_each_other_are_refused_at_once(shop: ScoringShop) -> None:
    for params, reason in [
        ({"thresholds": {"same": 0.2, "different": 0.7}}, "give 0 <= different <= same <= 1"),
        ({"scope": "all", "item_ids": ["a"]}, "give one of scope=all, item_ids and pairs_file"),
        ({"item_ids": ["a"], "pairs_file": "a.csv"}, "give one of"),
        ({"pairs_file": "pairs.txt"}, r"pairs\.txt: unknown format; name it \.jsonl, \.csv or \.parquet"),
        ({"pairs_file": "https://shop/pairs.csv"}, "give s3://bucket/key, file:///folder/file, or a path"),
        ({"item_ids": []}, "item_ids"),
        ({"categories": []}, "categories"),
        ({"categories": ["Tools"], "item_ids": ["a"]}, "categories and sources choose items: leave them out"),
        ({"sources": ["s1"], "pairs_file": "a.csv"}, "categories and sources choose items"),
        ({"blocking": {"most": 3}}, r"blocking\.most: Unexpected keyword argument\. It takes: max_per_item, sources"),
        ({"blocking": {"max_per_item": "many"}}, r"blocking\.max_per_item: Input should be a valid integer"),
        ({"blocking": {"max_per_item": 0}}, "max_per_item is 0"),
        ({"grouping": {"max_size": 1}}, "max_size is 1"),
        ({"thresholds": {"same": 0.9}}, "thresholds.different"),
        ({"cascade": {"lo": 0.9}}, r"cascade\.CascadeOptions\.lo: .* It takes: model, low, high"),
    ]:
        with pytest.raises(UserError, match=reason):
            shop.submit(**params)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"model": "untrained:1"}, "untrained:1 has no calibrated thresholds"),
        ({"model": "nobody:1"}, "There is no model version nobody:1"),
        ({"blocker": "scorer:1"}, "scorer:1 has no item vectors"),
        ({"cascade": {"model": "scorer:1", "low": 0.1, "high": 0.9}}, "scorer:1 has no item vectors"),
        ({"cascade": {"low": 0.9, "high": 0.1}}, "give 0 <= low <= high <= 1"),
        ({"item_ids": ["a", "lost", "gone"]}, "Item 'lost' and 1 more is not in the catalogue"),
        ({"categories": ["Tool"]}, "No item is of the category 'Tool': give one of the catalogue"),
        ({"categories": [" / "]}, "No item is of the category ' / '"),
        ({"sources": ["nobody"]}, "No item comes from 'nobody': give a source of the catalogue"),
    ],
)
def test_jobs_that_cannot_begin(shop: ScoringShop, params: dict[str, Any], reason: str) -> None:
    add_scorer("untrained", thresholds={})
    job = shop.run(**params)
    assert job.state == "failed"
    assert reason in str(job.error)


def test_a_job_for_a_category_or_a_source_takes_up_these_items_alone(bare_shop: ScoringShop) -> None:
    shop = bare_shop
    shop.put("a", TITLES["a"], category="Tools > Drills", source="s1")
    shop.put("b", TITLES["b"], category="Tools/Drills/Kits", source="s2")
    shop.put("c", TITLES["c"], category="Tools", source="s1")
    shop.put("x", TITLES["x"], category="Toolshed", source="s2")
    shop.put("y", TITLES["y"], category="Toolshed")

    def taken_up(**params: Any) -> set[str]:
        before = shop.jobs_of_scores()
        job = shop.run(**params)
        assert (job.state, job.error) == ("succeeded", None)
        after = shop.jobs_of_scores()
        return {"".join(pair) for pair in after if after[pair] != before.get(pair)}

    drills = taken_up(categories=["Tools/Drills"])
    assert drills == {"ab", "ac", "bc"}  # c is a partner, not taken up
    assert taken_up(categories=["Tools/Drills"]) == set()
    assert taken_up(sources=["s2"]) == {"xy"}  # b was matched before
    assert taken_up(scope="all", sources=["s1"]) == {"ab", "ac", "bc"}
    assert taken_up(scope="all", categories=["Tools"], sources=["s2"]) == {"ab", "bc"}
    assert taken_up() == set()  # c and y are due, and all their pairs are scored
