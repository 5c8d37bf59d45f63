"""Whatever we write we read back as it was, also where a spreadsheet would run it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from pyarrow import csv as arrow_csv
from sqlalchemy import select

from shopvision.database import connect
from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_table import PairTable
from shopvision.matching.groups.export import export_groups, export_scores
from shopvision.matching.groups.group_update import update_groups
from shopvision.matching.groups.reviews import PairToReview, import_reviews, reviewed_pairs, write_review_list
from shopvision.matching.requested_pairs import pairs_of_file
from shopvision.matching.stopping import never
from shopvision.matching.tables import MatchingRequest
from shopvision.reports.row_writer import record_writer
from tests.integration.matching.pairs import JOB, add_items, add_matcher, add_scores

IDS = sorted(["'-2", "'=x", "''@", "+a b", "-2", "-x", "=1+1", "@home", "a"])
TITLES = {item_id: f"{item_id} | dress" for item_id in IDS}
PAIRS = set(pairwise(IDS))

pytestmark = pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])


@pytest.fixture
def version(database: None) -> int:
    version = add_matcher()
    add_items([{"item_id": item_id, "title": title} for item_id, title in TITLES.items()])
    add_scores(version, *((*pair, 0.95, "same") for pair in PAIRS))
    update_groups(version, JOB)
    return version


def pairs_of(table: PairTable) -> set[tuple[str, str]]:
    ids = [item.item_id for item in table.items]
    return {(ids[left], ids[right]) for left, right in zip(table.left.tolist(), table.right.tolist(), strict=True)}


def test_scores_come_back_as_pairs(
    version: int, suffix: str, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    path = tmp_path / f"scores{suffix}"
    export_scores(path)
    assert pairs_of(read_pairs(path)) == PAIRS
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    list(pairs_of_file(uuid.UUID(int=7), str(path), never))
    with connect() as connection:
        requested = connection.execute(select(MatchingRequest.left_item_id, MatchingRequest.right_item_id)).all()
    assert {tuple(row) for row in requested} == PAIRS


def test_groups_come_back_as_items(version: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"groups{suffix}"
    export_groups(path)
    assert {item.item_id: item.title for item in read_items(path).values()} == TITLES


def test_decisions_come_back(version: int, suffix: str, tmp_path: Path) -> None:
    """A file that is filled in, as ``write_review_list`` lays it out."""
    path = tmp_path / f"reviews{suffix}"
    columns = ("left_item_id", "right_item_id", "verdict", "note")
    with record_writer(path, dict.fromkeys(columns, "string")) as write:
        write([(*pair, "same", "=note") for pair in sorted(PAIRS)])
    assert import_reviews(path).written == len(PAIRS)
    with connect() as connection:
        assert pairs_of(reviewed_pairs(connection)) == PAIRS


def test_a_list_to_fill_in_comes_back_undecided(version: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"todo{suffix}"
    write_review_list(path, [PairToReview(*pair, 0.5, TITLES[pair[0]], TITLES[pair[1]]) for pair in sorted(PAIRS)])
    report = import_reviews(path)
    assert (report.undecided, report.refused) == (len(PAIRS), [])
    assert pairs_of(read_pairs(path)) == PAIRS
    if suffix == ".csv":
        seen = [str(text) for row in arrow_csv.read_csv(path).to_pylist() for text in row.values()]
        assert [text for text in seen if text[:1] in {*"=@+-"}] == ["-2", "-2"]  # a number
