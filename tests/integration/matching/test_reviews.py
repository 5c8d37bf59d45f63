"""People's decisions: from lists to files and back, refused line by line, never half."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from shopvision.catalogue import delete_items, upsert_items
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.groups.reviews import import_reviews, pairs_to_review, reviewed_pairs, write_review_list
from shopvision.matching.prune import prune
from shopvision.matching.tables import PairReview
from tests.conftest import Run
from tests.integration.matching.pairs import fill_shop
from tests.integration.meanwhile import right_after

Review = tuple[str, str, str, str | None, str | None]


@pytest.fixture
def version(database: None, tmp_path: Path) -> int:
    return fill_shop(tmp_path)


def stored() -> set[Review]:
    with connect() as connection:
        return {
            tuple(row)  # type: ignore[misc]  # five texts
            for row in connection.execute(
                select(
                    PairReview.left_item_id, PairReview.right_item_id, PairReview.verdict, PairReview.reviewer,
                    PairReview.note,
                )
            )
        }  # fmt: skip


def file(folder: Path, *lines: str) -> Path:
    path = folder / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "pairs", "reviews")


def test_the_least_certain_come_first(version: int) -> None:
    by_card = pairs_to_review(version, decision=0.6)
    assert [(pair.left_item_id, pair.right_item_id) for pair in by_card] == [('c"1', "c,2"), ("a1", "b1")]
    assert [pair.left_item_id for pair in pairs_to_review(version, decision=0.2)] == ["a1", 'c"1']
    assert len(pairs_to_review(version, limit=1)) == 1
    assert pairs_to_review(version + 1) == []
    assert by_card[0].right_title == "=Wool hat, grey"


def test_a_list_that_is_filled_in_comes_back(version: int, tmp_path: Path) -> None:
    path = tmp_path / "todo.csv"
    write_review_list(path, pairs_to_review(version))
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["right_title"] == "'=Wool hat, grey"
    assert import_reviews(path).as_dict() == {
        "rows": 2, "written": 0, "unchanged": 0, "undecided": 2, "refused": 0, "errors": [],
    }  # fmt: skip
    rows[0] |= {"verdict": " Same ", "reviewer": "빛나", "note": 'one, "hat"\nin two lines'}
    rows[1] |= {"verdict": "DIFFERENT"}
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report = import_reviews(path, reviewer="me")
    assert (report.written, report.refused) == (2, [])
    assert stored() == {
        ('c"1', "c,2", "same", "빛나", 'one, "hat"\nin two lines'), ("a1", "b1", "different", "me", None),
    }  # fmt: skip
    assert pairs_to_review(version) == []
    again = import_reviews(path, reviewer="me")
    assert (again.written, again.unchanged) == (0, 2)
    with connect() as connection:
        assert sorted(reviewed_pairs(connection).labels.tolist()) == [0, 1]


def test_items_that_are_deleted_while_reviews_are_read_are_learnt_from(version: int, tmp_path: Path) -> None:
    pairs = ("a1,a2,same", "a2,a3,same", "b1,b2,same", "a1,b1,different", "a2,b2,different", 'b1,"c""1",different')
    import_reviews(file(tmp_path, "left_item_id,right_item_id,verdict", *pairs))
    config = MatcherConfig.model_validate({"data": {"catalogue": True}, "model": {"family": "text_two_tower"}})

    def delete() -> None:
        with connect() as connection:
            delete_items(connection, ["a1"])

    with right_after("FROM pair_reviews", delete), pytest.raises(UserError, match="6 pairs form 1 groups"):
        read_splits(config)


def test_both_orders_are_one_pair_and_the_last_file_counts(version: int, tmp_path: Path) -> None:
    import_reviews(file(tmp_path, "left_item_id,right_item_id,verdict", "b1,a1,same"))
    import_reviews(file(tmp_path, "left_item_id,right_item_id,verdict,note", "a1,b1,different,", "b1,a1,different,no"))
    assert stored() == {("a1", "b1", "different", None, "no")}


def test_bad_rows_are_named_and_the_others_go_in(version: int, tmp_path: Path, run: Run) -> None:
    path = file(
        tmp_path, "left_item_id,right_item_id,verdict", "a1,a2,same", "a1,nobody,same", "a1,b1,maybe", "a1,a1,same",
        ",a1,same", "a2,a3,same", "a3,a2,different",
    )  # fmt: skip
    status, out, err = run("import", str(path))
    assert status == 1
    told = [line.partition("reviews.csv: ")[2] for line in err.splitlines()]
    assert told == [
        "line 3: item 'nobody' is not in the catalogue; correct its id.",
        "line 4: verdict is 'maybe'; write same or different.",
        "line 5: item 'a1' is paired with itself; name two items.",
        "line 6: left_item_id is empty; name both.",
        "line 7: the pair 'a2', 'a3' is decided both ways in lines 7, 8; keep the right one.",
        "line 8: the pair 'a2', 'a3' is decided both ways in lines 7, 8; keep the right one.",
    ]
    assert "1 written" in out
    assert stored() == {("a1", "a2", "same", None, None)}
    status, out, _ = run("import", str(path), "--json")
    assert (status, json.loads(out)["refused"], json.loads(out)["unchanged"]) == (1, 6, 1)


def test_1_and_1_0_are_two_items_and_the_number_1_0_is_neither(version: int, tmp_path: Path) -> None:
    with connect() as connection:
        upsert_items(connection, [{"item_id": one, "title": "T"} for one in ("1", "1.0")])
    path = tmp_path / "reviews.jsonl"
    rows = [{"left_item_id": one, "right_item_id": "a1", "verdict": "same"} for one in (1, "1.0", 1.0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_reviews(path)
    assert [(line, reason.partition(";")[0]) for line, reason in report.refused] == [
        (3, "left_item_id is the number 1.0"),
    ]  # fmt: skip
    assert {review[:3] for review in stored()} == {("1", "a1", "same"), ("1.0", "a1", "same")}


def test_decisions_outlive_their_items(version: int, tmp_path: Path) -> None:
    path = file(tmp_path, "left_item_id,right_item_id,verdict", "a1,a2,different", "a3,b1,same")
    import_reviews(path)
    with connect() as connection:
        delete_items(connection, ["a1", "a3"])
    prune()
    assert {review[:3] for review in stored()} == {("a1", "a2", "different"), ("a3", "b1", "same")}
    again = import_reviews(file(tmp_path, "left_item_id,right_item_id,verdict", "a1,a2,same", "a1,b2,same"))
    assert (again.written, [line for line, _ in again.refused]) == (1, [3])  # nobody ever decided the other


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reviews.csv", "left,right,verdict\na,b,same\n", "has no left_item_id, right_item_id: it needs the columns"),
        ("reviews.csv", "left_item_id,right_item_id,verdct\na,b,same\n", "has no verdict: it needs the columns"),
        ("reviews.csv", "", "no header line"),
        ("reviews.txt", "x", "unknown format"),
    ],
)
def test_a_file_that_is_no_list_of_reviews(
    version: int, tmp_path: Path, run: Run,
    name: str, content: str, message: str,
) -> None:  # fmt: skip
    (tmp_path / name).write_text(content)
    status, _, err = run("import", str(tmp_path / name))
    assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False)
    assert stored() == set()


def test_lists_on_the_command_line(version: int, tmp_path: Path, run: Run) -> None:
    status, out, _ = run("list", "--json", "--limit", "1")
    [pair] = json.loads(out)
    assert (status, pair["left_item_id"]) == (0, 'c"1')
    assert "0.300" in run("list", "--model", "matcher:1")[1]
    status, out, _ = run("export", "--output", str(tmp_path / "todo.csv"), "--json")
    assert (status, json.loads(out)["pairs"]) == (0, 2)
    for arguments, message in (
        (("list", "--model", "matcher:9"), "There is no model version matcher:9"),
        (("export", "--output", str(tmp_path / "none" / "x.csv")), "cannot be written: No such file or directory"),
        (("list", "--model", "matcher"), "matcher"),
    ):
        status, _, err = run(*arguments)
        assert (status, message in " ".join(err.split())) == (1, True)


def test_nothing_is_left_beside_a_list_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "todo.csv").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_review_list(tmp_path / "todo.csv", [])
    assert [path.name for path in tmp_path.iterdir()] == ["todo.csv"]
