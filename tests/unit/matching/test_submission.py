"""The submission format: what is written comes back bit by bit, and nothing read is ever run."""

from __future__ import annotations

import json
import math
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.matching.scoring.head_similarity import HeadSimilarity
from shopvision.matching.scoring.submission import (
    SubmissionRow,
    read_submission,
    similarities,
    threshold_between,
    write_submission,
)

GOOD = {
    "src_item_id": "a",
    "src_item_emb": "[1,2]",
    "tgt_item_id": "b",
    "tgt_item_emb": "[0.5,-1e-3]",
    "threshold": 0.4,
}


def rows(count: int, dimension: int) -> list[SubmissionRow]:
    generator = np.random.default_rng(count)
    vectors = generator.normal(size=(2, count, dimension)).astype(np.float32)
    return [SubmissionRow(f"商{row}", f'"{row}"', *vectors[:, row], 0.25) for row in range(count)]


def require_equal(found: list[SubmissionRow], expected: list[SubmissionRow]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.left, one.right, one.threshold) == (other.left, other.right, other.threshold)
        np.testing.assert_array_equal(one.left_vector, other.left_vector)
        np.testing.assert_array_equal(one.right_vector, other.right_vector)
        assert one.left_vector.dtype == np.float32


@pytest.mark.parametrize("suffix", ["jsonl", "zip"])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result.{suffix}"
    expected = rows(5, 1024)
    assert write_submission(path, expected, "cosine") == 5
    require_equal(list(read_submission(path)), expected)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_format_is_the_published_one(tmp_path: Path) -> None:
    write_submission(tmp_path / "r.jsonl", [SubmissionRow("1", "2", *np.float32([[0.25], [0.75]]), 0.4)], "second")
    assert json.loads((tmp_path / "r.jsonl").read_text()) == {
        "src_item_id": "1", "src_item_emb": "[0.25]", "tgt_item_id": "2", "tgt_item_emb": "[0.75]", "threshold": 0.4,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cosine", "inner_product", "l1", "l2", "second"])
def test_the_program_in_the_archive_computes_the_same(tmp_path: Path, name: str) -> None:
    some = rows(4, 8)
    write_submission(tmp_path / "r.zip", some, name)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert sorted(archive.namelist()) == ["result.jsonl", "similarity.py"]
        archive.extract("similarity.py", tmp_path)
    compute = runpy.run_path(str(tmp_path / "similarity.py"))["compute"]
    left, right = np.stack([row.left_vector for row in some]), np.stack([row.right_vector for row in some])
    theirs = [compute(row.left_vector.tolist(), row.right_vector.tolist()) for row in some]
    np.testing.assert_allclose(similarities(name, left, right), theirs, rtol=1e-12)


def test_learnt_heads_by_hand() -> None:
    """Two numbers an item; tanh of 0 is 0, and the hidden unit sees the difference of the first numbers alone."""
    additive = {"left": [1, 2], "right": [3, 4], "bias": [0.5]}
    interaction = {"dense": [[0, 0, 0, 0, 2, 0, 0, 0]], "dense_bias": [0], "out": [-3], "bias": [1]}
    u, v = np.float32([[1, 2], [1, 2]]), np.float32([[3, 5], [1, 7]])
    for kind, weights, expected in (
        ("additive", additive, [5 + 29 + 0.5, 5 + 31 + 0.5]),
        ("interaction", interaction, [1 - 3 * math.tanh(4), 1.0]),
    ):
        head = HeadSimilarity(kind, {name: np.float32(values) for name, values in weights.items()})  # type: ignore[arg-type]  # one of the two
        assert head.of(u, v) == pytest.approx(expected)


def test_a_learnt_head_needs_the_archive(tmp_path: Path) -> None:
    head = HeadSimilarity("additive", {name: np.ones(1, np.float32) for name in ("left", "right", "bias")})
    with pytest.raises(UserError, match=r"r\.jsonl: the model compares vectors by weights of its own: name a \.zip"):
        write_submission(tmp_path / "r.jsonl", [], head)
    assert list(tmp_path.iterdir()) == []


def test_similarities_by_hand() -> None:
    u, v = np.float32([[3, 4]]), np.float32([[4, 3]])
    found = [float(similarities(name, u, v)[0]) for name in ("cosine", "inner_product", "l1", "l2", "second")]
    assert found == pytest.approx([24 / 25, 24, -2, -(2**0.5), 4])
    assert similarities("cosine", np.zeros((1, 2), np.float32), u)[0] == 0


@pytest.mark.parametrize(
    ("values", "same", "expected"),
    [([0.1, 0.5, 0.9], [0, 0, 1], 0.7), ([0.1, 0.9], [1, 1], 0.1)],
)
def test_thresholds_that_decide_as_the_model(values: list[float], same: list[int], expected: float) -> None:
    array, wanted = np.array(values), np.array(same, bool)
    found = threshold_between(array, wanted)
    assert found == pytest.approx(expected)
    np.testing.assert_array_equal(array >= found, wanted)


def test_a_threshold_above_all_where_all_differ() -> None:
    found = threshold_between(np.array([0.1, 0.9]), np.zeros(2, bool))
    assert found > 0.9


@pytest.mark.parametrize(("values", "scale"), [([0.1, 0.5, 0.5 - 1e-7, 0.9], 1), ([-40.0, -9.0, -9.00001, 2.0], 40)])
def test_what_float32_cannot_tell_apart_may_be_the_other_way_round(values: list[float], scale: float) -> None:
    """Of 60,000 pairs two were so, at one of 300 thresholds, and nothing was submitted."""
    array, said = np.array(values), np.array([False, False, True, True])
    found = threshold_between(array, said)
    assert ((array >= found) == said).sum() >= 3
    array[2] -= 1e-5 * scale
    with pytest.raises(UserError, match="does not decide by this similarity"):
        threshold_between(array, said)


def test_a_model_that_decides_otherwise() -> None:
    with pytest.raises(UserError, match="does not decide by this similarity"):
        threshold_between(np.array([0.1, 0.9]), np.array([True, False]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"src_item_emb": "__import__('os').system('touch hacked')"}, "src_item_emb is"),
        ({"tgt_item_emb": [1, 2]}, "tgt_item_emb is"),
        ({"tgt_item_emb": "[1, NaN]"}, "tgt_item_emb is"),
        ({"tgt_item_emb": "[1e400]"}, "tgt_item_emb is"),
        ({"tgt_item_emb": "[1, true]"}, "tgt_item_emb is"),
        ({"tgt_item_emb": "[]"}, "tgt_item_emb is"),
        ({"tgt_item_emb": str([0.5] * 1025)}, "1024 at most"),
        ({"threshold": "0.4"}, "threshold is '0.4'; write a number"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"src_item_id": None}, "src_item_id is null; write the item's id as text"),
        ({"tgt_item_id": None}, "tgt_item_id is null"),
        ({"tgt_item_id": " "}, 'tgt_item_id is " "'),
        ({"src_item_id": 1.0}, "src_item_id is 1.0"),
        ({"src_item_id": True}, "src_item_id is true"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | change) + "\n")
    found = read_submission(path)
    assert next(found).left == "a"
    with pytest.raises(UserError, match=r"r\.jsonl: line 3: ") as error:
        list(found)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"), [("[1]", "no src_item_id"), ("{", "not JSON"), ('{"threshold": 1}', "no ")]
)
def test_lines_that_are_no_pairs(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "r.jsonl").write_text(line)
    with pytest.raises(UserError, match=f"line 1: {message}"):
        list(read_submission(tmp_path / "r.jsonl"))


def test_files_that_are_no_submissions(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(UserError, match="no zip archive"):
        list(read_submission(tmp_path / "broken.zip"))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(UserError, match=r"holds 0 \.jsonl files"):
        list(read_submission(tmp_path / "empty.zip"))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(read_submission(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("name", "similarity", "vector", "message"),
    [
        ("r.csv", "cosine", [1.0], r"is named \.jsonl or \.zip"),
        ("r.zip", "euclid", [1.0], "There is no similarity 'euclid': choose cosine,"),
        ("r.zip", "cosine", [np.inf], "vector of item a is not finite"),
        ("r.jsonl", "cosine", [0.5] * 1025, "has 1025 numbers: a submission takes 1 to 1024"),
    ],
)
def test_what_cannot_be_submitted(
    tmp_path: Path, name: str, similarity: str, vector: list[float], message: str
) -> None:
    row = SubmissionRow("a", "b", np.float32(vector), np.float32([1]), 0.5)
    with pytest.raises(UserError, match=message):
        write_submission(tmp_path / name, [row], similarity)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="2 and 1 numbers have no cosine"):
        similarities("cosine", np.ones((1, 2), np.float32), np.ones((1, 1), np.float32))
