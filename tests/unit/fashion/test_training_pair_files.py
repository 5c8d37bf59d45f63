"""Training-pairs files: what is read, what is refused, and that written ones are read as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shopvision.errors import UserError
from shopvision.fashion.pair_file import TrainingPairRow, read_training_pairs, write_training_pairs

ROWS = [
    TrainingPairRow(
        "https://cdn.example/post.jpg",
        "s3://shop/one.jpg",
        anchor_box=(10.25, 20.0, 110.0, 220.125),
        category="shoes",
        product_id="=1+1",
        post_id="7",
    ),
    TrainingPairRow("file:///shop/a.jpg", "file:///shop/b.jpg", positive_box=(-3.5, 0.0, 20.0, 30.0)),
]


def _file(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_what_is_written_is_read_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.{suffix}"

    assert write_training_pairs(path, ROWS) == 2
    assert read_training_pairs(path) == ROWS
    assert sorted(tmp_path.iterdir()) == [path]


def test_paths_start_from_the_files_folder_or_from_images(tmp_path: Path) -> None:
    path = _file(tmp_path, {"anchor": "posts/a b.jpg", "positive": "one.jpg", "product_id": 12})

    (row,) = read_training_pairs(path)
    assert row.anchor == (tmp_path / "posts/a b.jpg").as_uri()
    assert row.product_id == "12"
    (elsewhere,) = read_training_pairs(path, images="s3://shop/pictures")
    assert elsewhere.positive == "s3://shop/pictures/one.jpg"


def test_a_pair_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    record = {"anchor": "a.jpg", "positive": "b.jpg"}
    assert len(read_training_pairs(_file(tmp_path, record, record))) == 1
    posts = [record | {"post_id": "1"}, record | {"post_id": "2"}]
    assert [row.post_id for row in read_training_pairs(_file(tmp_path, *posts))] == ["1"]


PAIR = {"anchor": "a.jpg", "positive": "b.jpg"}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "holds no pair: write one a line"),
        ([{"anchor": "a.jpg"}], "line 1: no positive; write the picture's address"),
        ([PAIR | {"anchor": "ftp://a/b"}], "anchor: uri 'ftp://a/b' is not supported"),
        ([PAIR | {"positive": "../b.jpg"}], "positive: file '../b.jpg' is not inside the picture folder"),
        ([PAIR | {"anchor_box": [1, 2, 3]}], r"anchor_box is '\[1, 2, 3\]'; write four numbers"),
        ([PAIR | {"anchor_box": [1, 2, 3, True]}], "write four numbers"),
        ([PAIR | {"anchor_box": "1 2 3 nan"}], "write four numbers"),
        ([PAIR | {"positive_box": 7}], "positive_box is '7'; write four numbers"),
        ([PAIR | {"anchor_box": [50, 50, 20, 20]}], "holds no pixel of the picture; write left, top, right, bottom"),
        ([PAIR | {"category": ["shoes"]}], "category is no text"),
        ([PAIR | {"positive": "a.jpg"}], "are the same picture, which teaches nothing; name two"),
        ([PAIR | {"product_id": "1"}, PAIR | {"product_id": "2"}], "line 2: .* another category or product in line 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_the_mend(
    tmp_path: Path, records: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_training_pairs(_file(tmp_path, *records))


def test_a_failure_leaves_the_former_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    write_training_pairs(path, ROWS)

    def breaking() -> Any:
        yield ROWS[0]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_training_pairs(path, breaking())
    assert read_training_pairs(path) == ROWS
    assert sorted(tmp_path.iterdir()) == [path]
