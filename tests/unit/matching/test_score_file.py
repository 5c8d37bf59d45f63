"""Scoring a file on the command line, with real tiny models and without any database."""

from __future__ import annotations

import json
import runpy
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shopvision.items.item import Item
from shopvision.matching.families.axes import Axes
from shopvision.matching.scoring.predict import PairScorer
from shopvision.matching.scoring.submission import read_submission, similarities
from tests.conftest import Run
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny

ITEMS = [
    {"item_id": "1", "title": "red nike shoe"}, {"item_id": "2", "title": "nike shoe, red"},
    {"item_id": "3", "title": "apple watch band"}, {"item_id": "4"},
]  # fmt: skip
PAIRS = [("1", "2"), ("3", "1"), ("2", "3")]


def write(path: Path, records: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def pairs_file(folder: Path, *pairs: tuple[str, str]) -> str:
    rows = [{"left_item_id": left, "right_item_id": right} for left, right in pairs]
    return write(folder / "pairs.jsonl", rows)  # type: ignore[arg-type]  # texts are objects


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "pairs")


@pytest.fixture
def one_tower(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "one", arguments("text_one_tower", ONE))
    return tmp_path / "one"


@pytest.fixture
def items(tmp_path: Path) -> str:
    return write(tmp_path / "items.jsonl", ITEMS)  # type: ignore[arg-type]  # as above


def expected(folder: Path) -> list[float]:
    known = {str(record["item_id"]): Item(str(record["item_id"]), str(record.get("title", ""))) for record in ITEMS}
    return [one.probability for one in PairScorer(folder)([(known[left], known[right]) for left, right in PAIRS])]


def test_ids_and_items(one_tower: Path, items: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr("shopvision.matching.scoring.score_file.PAIRS_AT_ONCE", 2)
    output = tmp_path / "scores.jsonl"
    status, out, _ = run(
        "score", pairs_file(tmp_path, *PAIRS), "--items", items, "--model", str(one_tower),
        "--output", str(output), "--json",
    )  # fmt: skip
    assert (status, json.loads(out)["scored"]) == (0, 3)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["left_item_id"], row["right_item_id"]) for row in rows] == PAIRS
    assert [row["probability"] for row in rows] == pytest.approx(expected(one_tower), abs=5e-3)
    assert {row["verdict"] for row in rows} <= {"same", "different", "review"}


def test_inline_texts(one_tower: Path, tmp_path: Path, run: Run) -> None:
    rows: list[dict[str, object]] = [{"left": {"title": "red shoe"}, "right": {"title": "shoe, red"}, "label": 1}]
    output = tmp_path / "scores.csv"
    status, out, _ = run(
        "score", write(tmp_path / "pairs.jsonl", rows), "--model", str(one_tower), "--output",
        str(output),
    )  # fmt: skip
    assert (status, "1 pairs scored, 0 not" in out) == (0, True)
    assert output.read_text().splitlines()[0] == "left_item_id,right_item_id,probability,verdict"


def test_what_cannot_be_scored_is_told_and_the_rest_goes_on(
    one_tower: Path, items: str, tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "scores.jsonl"
    file = pairs_file(tmp_path, ("1", "2"), ("1", "nobody"), ("3", "3"), ("4", "1"))
    status, out, err = run(
        "score", file, "--items", items, "--model", str(one_tower), "--output", str(output),
    )  # fmt: skip
    assert (status, "1 pairs scored, 3 not" in out) == (1, True)
    told = " ".join(err.split())
    for message in (
        "line 2: item 'nobody' is unknown",
        "line 3: item '3' is paired with itself",
        "pair '4', '1': Item '4' has no words that the model reads",
    ):
        assert message in told
    assert len(output.read_text().splitlines()) == 1


def test_a_picture_that_cannot_be_read_fails_its_pairs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    save_tiny(tmp_path / "image", arguments("image_two_tower", COSINE))
    monkeypatch.setenv("SHOPVISION_IMAGE_ROOTS", str(tmp_path))
    records: list[dict[str, object]] = []
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
        records.append({"item_id": name, "picture": (tmp_path / f"{name}.png").as_uri()})
    (tmp_path / "c.png").write_bytes(b"broken")
    records.append({"item_id": "d", "title": "without picture"})
    output = tmp_path / "scores.jsonl"
    status, out, _ = run(
        "score", pairs_file(tmp_path, ("a", "b"), ("b", "c"), ("d", "a")), "--items",
        write(tmp_path / "items.jsonl", records), "--model", str(tmp_path / "image"), "--output", str(output), "--json",
    )  # fmt: skip
    told = json.loads(out)
    assert (status, told["scored"]) == (1, 1)
    assert ["'c'" in told["errors"][0]["message"], told["errors"][1]["code"]] == [True, "no_picture"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "none/such"}, "none/such is no folder"),
        ({"--output": "scores.xlsx"}, "unknown format. Name it .jsonl, .csv or .parquet"),
        ({"--items": "missing.jsonl"}, "there is no such file"),
    ],
)
def test_mistakes(
    one_tower: Path, items: str, tmp_path: Path, run: Run,
    change: dict[str, str], message: str,
) -> None:  # fmt: skip
    for command, name in (("score", "scores.csv"), ("submission", "result.zip")):
        options = {"--items": items, "--model": str(one_tower), "--output": str(tmp_path / name)} | change
        arguments_ = [word for option in options.items() for word in option]
        status, _, err = run(command, pairs_file(tmp_path, *PAIRS), *arguments_)
        if command == "submission":
            message = message.replace("unknown format. Name it .jsonl, .csv or .parquet", "is named .jsonl or .zip")
        assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False), err


def test_a_two_tower_submits_vectors_that_decide_as_it_does(items: str, tmp_path: Path, run: Run) -> None:
    folder, output = tmp_path / "two", tmp_path / "result.zip"
    save_tiny(folder, arguments("text_two_tower", COSINE))
    probabilities = np.array(expected(folder))
    middle = float(np.median(probabilities))
    save_tiny(
        tmp_path / "set",
        arguments("text_two_tower", COSINE),
        thresholds={"same": 1.0, "decision": middle, "different": 0.0},
    )
    status, out, _ = run(
        "submission", pairs_file(tmp_path, *PAIRS), "--items", items, "--model",
        str(tmp_path / "set"), "--output", str(output), "--json",
    )  # fmt: skip
    assert (status, json.loads(out)["similarity"]) == (0, "cosine")
    rows = list(read_submission(output))
    assert [(row.left, row.right) for row in rows] == PAIRS
    values = similarities(
        "cosine", np.stack([row.left_vector for row in rows]), np.stack([row.right_vector for row in rows])
    )
    assert [value >= rows[0].threshold for value in values] == (probabilities >= middle).tolist()


@pytest.mark.parametrize(
    ("head", "loss", "symmetric"),
    [("interaction", "bce", False), ("interaction", "ce", False), ("additive", "ce", False), ("additive", "bce", True)],
)
def test_a_learnt_head_goes_with_the_vectors(
    head: str, loss: str, symmetric: bool, items: str, tmp_path: Path, run: Run
) -> None:
    """Any program that has the archive alone decides as the model does, and no probability is in it."""
    axes = Axes.model_validate({"interaction": "two_tower", "head": head, "loss": loss})
    wanted = arguments("text_two_tower", axes, symmetric=symmetric)
    save_tiny(tmp_path / "two", wanted)
    probabilities = np.array(expected(tmp_path / "two"))
    middle = float(np.median(probabilities))
    save_tiny(tmp_path / "set", wanted, thresholds={"same": 1.0, "decision": middle, "different": 0.0})
    status, out, err = run(
        "submission", pairs_file(tmp_path, *PAIRS), "--items", items, "--model", str(tmp_path / "set"),
        "--output", str(tmp_path / "result.zip"), "--json",
    )  # fmt: skip
    assert (status, json.loads(out)["similarity"]) == (0, f"learnt ({head})"), err
    rows = list(read_submission(tmp_path / "result.zip"))
    assert {len(row.left_vector) for row in rows} == {16}
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        archive.extract("similarity.py", tmp_path)
    compute = runpy.run_path(str(tmp_path / "similarity.py"))["compute"]
    values = [compute(row.left_vector.tolist(), row.right_vector.tolist()) for row in rows]
    # The tiny model's calibration: scale 2, shift 0.5.
    np.testing.assert_allclose(1 / (1 + np.exp(-2 * np.array(values) - 0.5)), probabilities, atol=1e-5)
    assert [value >= row.threshold for value, row in zip(values, rows, strict=True)] == (
        probabilities >= middle
    ).tolist()


def test_a_one_tower_submits_its_probabilities(one_tower: Path, items: str, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "result.jsonl"
    run(
        "submission", pairs_file(tmp_path, *PAIRS), "--items", items, "--model", str(one_tower),
        "--output", str(output),
    )  # fmt: skip
    rows = list(read_submission(output))
    assert [float(row.right_vector[0]) for row in rows] == pytest.approx(expected(one_tower), abs=5e-3)
    assert [float(row.left_vector[0] + row.right_vector[0]) for row in rows] == pytest.approx([1, 1, 1])
    assert {row.threshold for row in rows} == {0.5}
