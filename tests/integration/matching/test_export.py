"""Scores and groups in files: every format, filters, what people decided, and nothing half-written."""

from __future__ import annotations

import csv
import json
import uuid
from functools import partial
from pathlib import Path

import pytest
from pyarrow import parquet

from shopvision.errors import UserError
from shopvision.matching.groups.export import GROUP_COLUMNS, SCORE_COLUMNS, export_groups, export_scores
from shopvision.matching.groups.reviews import import_reviews
from tests.conftest import Run
from tests.integration.matching.pairs import JOB, add_scores, fill_shop


@pytest.fixture
def version(database: None, tmp_path: Path) -> int:
    return fill_shop(tmp_path)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_scores_in_three_formats(version: int, tmp_path: Path) -> None:
    assert export_scores(tmp_path / "scores.jsonl") == 7
    found = lines(tmp_path / "scores.jsonl")
    assert list(found[0]) == list(SCORE_COLUMNS)
    first = {(row["left_item_id"], row["right_item_id"]): dict(row) for row in found}["a1", "a2"]
    moment = str(first.pop("scored_at"))
    assert moment[10] == "T"
    assert moment.endswith("Z")
    assert first == {
        "left_item_id": "a1", "right_item_id": "a2", "probability": pytest.approx(0.99), "verdict": "same",
        "reviewed": False, "exact": "", "model": "matcher:1", "job_id": str(JOB),
    }  # fmt: skip
    export_scores(tmp_path / "scores.parquet")
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string"] * 2 + ["float", "string", "bool"] + ["string"] * 4
    assert [row | {"probability": pytest.approx(row["probability"])} for row in table.to_pylist()] == found
    export_scores(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        assert [row["right_item_id"] for row in csv.DictReader(file)] == [row["right_item_id"] for row in found]


def test_filters_and_reviews(version: int, tmp_path: Path) -> None:
    other = uuid.UUID(int=5)
    add_scores(version, ("a2", "b1", 0.02, "different"), job_id=other)
    (tmp_path / "reviews.csv").write_text("left_item_id,right_item_id,verdict\na1,b1,different\n")
    import_reviews(tmp_path / "reviews.csv")
    path = tmp_path / "out.jsonl"
    assert export_scores(path, verdict="different") == 3
    assert [row["reviewed"] for row in lines(path)] == [True, False, False]
    assert export_scores(path, verdict="review") == 1
    assert export_scores(path, job_id=other) == 1
    assert export_scores(path, model_version_id=version + 1) == 0
    assert lines(path) == []
    export_scores(tmp_path / "none.parquet", model_version_id=version + 1)
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_groups(version: int, tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl"
    assert export_groups(path) == 5
    found = lines(path)
    assert list(found[0]) == list(GROUP_COLUMNS)
    members: dict[object, list[object]] = {}
    for row in found:
        members.setdefault(row["group_id"], []).append(row["item_id"])
    assert sorted(members.values(), key=str) == [["a1", "a2", "a3"], ["b1", "b2"]]
    assert {row["item_id"]: row["title"] for row in found}["a3"] == "초록 리넨 셔츠"
    told = {row["item_id"]: (row["keep"], row["kept_by"], json.loads(str(row["lends"]))) for row in found}
    assert told["a1"] == (True, "id", [])
    assert told["a3"] == (False, "id", [{"field": "images", "values": [(tmp_path / "a3.png").as_uri()]}])
    assert export_groups(path, job_id=uuid.UUID(int=5)) == 0


def test_more_rows_than_are_held_at_once(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shopvision.matching.groups.export.ROWS_AT_ONCE", 2)
    monkeypatch.setattr("shopvision.reports.row_writer.PARQUET_ROWS", 3)
    for suffix in ("parquet", "jsonl"):
        assert export_scores(tmp_path / f"scores.{suffix}") == 7
    whole = parquet.ParquetFile(tmp_path / "scores.parquet")
    assert (whole.num_row_groups, whole.metadata.num_rows) == (2, 7)
    assert len(lines(tmp_path / "scores.jsonl")) == 7


def test_a_failure_leaves_the_old_file(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "here" / "scores.jsonl"
    path.parent.mkdir()
    path.write_text("old")
    monkeypatch.setattr("json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_scores(path)
    assert [(one.name, one.read_text()) for one in path.parent.iterdir()] == [("scores.jsonl", "old")]


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "pairs", "export")


def test_the_command(version: int, tmp_path: Path, run: Run) -> None:
    output = str(tmp_path / "out.jsonl")
    for arguments, rows in (
        ((), 7), (("--verdict", "same", "--model", "matcher:1"), 4), (("--what", "groups", "--job", "1111"), 5),
    ):  # fmt: skip
        status, out, _ = run("--output", output, "--json", *arguments)
        assert (status, json.loads(out)["rows"]) == (0, rows)
    for arguments, message in (
        (("--output", output, "--what", "items"), "there are scores and groups"),
        (("--output", output, "--verdict", "perhaps"), "There is no verdict 'perhaps'"),
        (("--output", output, "--what", "groups", "--verdict", "same"), "groups have none"),
        (("--output", output, "--job", "ffff"), "There is no job 'ffff'"),
        (("--output", output, "--model", "matcher:9"), "There is no model version matcher:9"),
        (("--output", str(tmp_path / "out.xlsx")), "unknown format. Name it .jsonl, .csv or .parquet"),
        (("--output", str(tmp_path / "none" / "out.csv")), "cannot be written"),
    ):
        status, _, err = run(*arguments)
        assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False), arguments


def test_a_folder_in_the_way(tmp_path: Path, database: None) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        export_scores(tmp_path / "out.jsonl")
