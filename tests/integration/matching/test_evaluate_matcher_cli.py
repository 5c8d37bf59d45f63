"""``shopvision evaluate matcher`` and ``cascade``: table, JSON, files, and what a mistake looks like."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.matching.scoring.predict import PairScorer
from tests.conftest import Run
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny

WORDS = ("apple", "watch", "red", "blue", "shoe", "nike", "band", "size")


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "evaluate")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items with pictures, labelled pairs of them, and pairs that training saw; one picture is gone."""
    folder = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    lines = []
    for number in range(40):
        name = f"{number}.png"
        if number:
            Image.fromarray(generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(folder / name)
        title = " ".join(generator.choice(WORDS, 4))
        category = ("Shoes", "Watches")[number % 2]
        lines.append({"item_id": f"i{number}", "title": title, "category": category, "picture": name})
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = [(number, (number + 2 * step) % 40) for number in range(40) for step in (1, 2)]
    labels = generator.integers(0, 2, len(pairs)).tolist()
    for name, kept in (("pairs", pairs), ("train", [pair for pair in pairs if pair[0] % 2 == 0])):
        rows = [
            {"left_item_id": f"i{a}", "right_item_id": f"i{b}", "label": label}
            for (a, b), label in zip(kept, labels, strict=False)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "unlabelled.jsonl").write_text('{"left_item_id": "i1", "right_item_id": "i2"}')
    (folder / "stranger.jsonl").write_text('{"left_item_id": "i1", "right_item_id": "nobody", "label": 1}')
    (folder / "matcher.toml").write_text(
        f'[data]\npairs = "{folder}/pairs.jsonl"\nitems = "{folder}/items.jsonl"\nfractions = [0.5, 0.5, 0]\n'
        '[text]\nbuilder = "title"\n[model]\nfamily = "text_two_tower"\n'
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, arguments("text_one_tower", ONE))
    return folder


def given(files: Path) -> tuple[object, ...]:
    return ("--pairs", files / "pairs.jsonl", "--items", files / "items.jsonl", "--device", "cpu")


def test_pairs_are_measured_and_everything_is_written(run: Run, files: Path, model: Path, tmp_path: Path) -> None:
    status, out, err = run(
        "matcher", "--model", model, *given(files), "--train", files / "train.jsonl", "--output", tmp_path / "out"
    )
    assert status == 0, err
    for words in (
        "95 % interval", "average_precision", "verdicts: review_share", "baseline token_jaccard: f1",
        "category Shoes: f1", "categories unseen: f1", "which is optimistic", "80 pairs", "thresholds: decision",
    ):  # fmt: skip
        assert words in out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    table = read_pairs(files / "pairs.jsonl", read_items(files / "items.jsonl"))
    probabilities = PairScorer(model, device="cpu").score(table.items, table.left, table.right)
    expected = f1_score(table.labels, probabilities >= 0.5)
    assert written["metrics"]["f1"]["value"] == pytest.approx(expected)
    assert f"{expected:.4f}" in out
    [unseen] = [part for part in written["parts"] if part["name"] == "unseen"]
    assert unseen["metrics"]["accuracy"]["units"] == 40
    for name in ("metrics.png", "curves.png"):
        with Image.open(tmp_path / "out" / name) as plot:
            assert min(plot.size) > 400
    assert "data:image/jpeg" in (tmp_path / "out" / "errors.html").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert f"<td>f1</td><td>{expected:.4f}</td>" in page


def test_json_and_a_model_of_pictures(run: Run, files: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", arguments("image_two_tower", COSINE))
    status, out, err = run("matcher", "--model", tmp_path / "model", *given(files), "--json")
    assert status == 0, err
    told = json.loads(out)
    assert list(told["counts"].values())[::2] == [76, 4]
    assert "categories" not in {part["group"] for part in told["parts"]}


def test_a_configuration_gives_its_split_and_the_categories_seen(run: Run, files: Path, model: Path) -> None:
    status, out, err = run(
        "matcher", "--model", model, "--config", files / "matcher.toml", "--split", "valid", "--json"
    )
    assert status == 0, err
    told = json.loads(out)
    assert told["counts"]["pairs"] == 40
    assert [part["name"] for part in told["parts"] if part["group"] == "categories"] == [
        "unseen"
    ]  # the two categories share no pair, so each is one part


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Say what to evaluate on: --pairs FILE, or --config FILE, and not both."),
        (["--pairs", "pairs.jsonl", "--config", "matcher.toml"], "Say what to evaluate on"),
        (["--config", "matcher.toml", "--items", "items.jsonl"], "belong to --pairs"),
        (["--pairs", "pairs.jsonl", "--split", "test"], "--split belongs to --config"),
        (["--config", "matcher.toml"], "has no split 'test': choose train, valid, or name a file"),
        (["--pairs", "unlabelled.jsonl", "--items", "items.jsonl"], "1 of 1 pairs have no label"),
        (["--pairs", "stranger.jsonl", "--items", "items.jsonl"], "item 'nobody' is unknown"),
        (["--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--pairs", "pairs.jsonl", "--items", "items.jsonl", "--output", "items.jsonl"], "cannot be made"),
        (["--pairs", "pairs.jsonl", "--items", "items.jsonl", "--output", "/proc/self"], "choose another --output"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(
    run: Run, files: Path, model: Path, options: list[str], words: str
) -> None:
    settled = [files / option if "." in option else option for option in options]
    status, out, err = run("matcher", "--model", model, *settled, "--device", "cpu")
    assert (status, out) == (1, "")
    assert words in " ".join(err.split())
    assert err.strip().count("\n") == 0, err


def test_a_model_that_is_none_or_has_bad_thresholds_is_named(run: Run, files: Path, tmp_path: Path) -> None:
    assert "is no folder" in run("matcher", "--model", tmp_path / "gone", *given(files))[2]
    save_tiny(tmp_path / "model", arguments("text_one_tower", ONE))
    card = tmp_path / "model" / "card.json"
    values = json.loads(card.read_text())
    values["thresholds"] = {"same": 0.2, "different": 0.8, "decision": 0.5}
    card.write_text(json.dumps(values))
    assert "out of order" in run("matcher", "--model", tmp_path / "model", *given(files))[2]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    save_tiny(folder, arguments("text_two_tower", COSINE))
    return folder


def test_a_cascade_is_measured_and_told_as_a_job_takes_it(run: Run, files: Path, model: Path, tower: Path) -> None:
    options = ("--first", tower, "--second", model, "--valid", files / "train.jsonl", *given(files))
    status, out, err = run("cascade", *options)
    assert status == 0, err
    for words in ("alone: precision", "is asked about the other", "80 pairs", "With a job: cascade='{", "seconds: cas"):
        assert words in out
    told = json.loads(
        run("cascade", *options, "--max-f1-loss", "1", "--json", "--output", tower.parent / "measured")[1]
    )
    limits = json.loads(told["facts"]["parameter"])
    assert 0 <= limits["low"] <= limits["high"] <= 1
    assert 0 <= told["facts"]["passed_on"] <= 1
    assert told["counts"]["pairs"] == 80
    assert told["parts"][0]["metrics"]["f1"]["units"] == 80
    assert json.loads((tower.parent / "measured" / "metrics.json").read_text()) == told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--first", "MODEL", "--valid", "train.jsonl"], "reads both items at once: a cascade begins with a two-tower"),
        (["--first", "nowhere/model", "--valid", "train.jsonl"], "is no folder"),
        (["--first", "TOWER", "--valid", "unlabelled.jsonl"], "1 of 1 pairs have no label"),
        (["--first", "TOWER", "--valid", "stranger.jsonl"], "item 'nobody' is unknown"),
        (["--first", "TOWER", "--valid", "train.jsonl", "--output", "/proc/self"], "/proc/self cannot be made or writ"),
    ],
)
def test_a_mistake_with_a_cascade(
    run: Run, files: Path, model: Path, tower: Path, options: list[str], words: str
) -> None:
    places = {"MODEL": model, "TOWER": tower}
    settled = [places.get(option, files / option if "." in option else option) for option in options]
    status, out, err = run("cascade", "--second", model, *settled, *given(files))
    assert (status, out) == (1, "")
    assert words in " ".join(err.split())
    assert err.strip().count("\n") == 0, err
