"""`shopvision train click-ranker`, `shopvision evaluate click-ranker`: reports, files, and what mistakes look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.integration.training_commands import train, values, write_config
from tests.unit.selection.click_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("click-world"))


def sections(world: Path) -> dict[str, dict[str, Any]]:
    return {
        "data": {"clicks": str(world / "log.csv"), "kind": "clicks", "fractions": [0.5, 0.25, 0.25]},
        "model": {"recall": str(world / "recall")},
        "train": {"epochs": 8, "batch": 8, "lr": 0.005, "seed": 1},
    }


def test_train_and_measure(world: Path, tmp_path: Path, command_line: Run) -> None:
    config = write_config(tmp_path / "ranker.toml", sections(world))
    told = train("click-ranker", "--config", config, "--output", tmp_path / "run", "--device", "cpu")
    assert values(told)["pair_accuracy"] > 0.7
    assert told["counts"] == {
        "validation pairs": 12, "pairs for train": 24, "pairs for test": 12, "unreadable pictures": 0,
    }  # fmt: skip
    assert told["facts"]["broken_records"] == 0
    model, output = tmp_path / "run/model", tmp_path / "evaluation"
    measured = ("evaluate", "click-ranker", model, "--device", "cpu", "--resamples", 50)
    code, text, _ = command_line(*measured, "--config", config, "--output", output, "--json")
    assert code == 0
    report = json.loads(text)
    assert report["metrics"]["pair_accuracy"]["value"] > 0.7
    assert {path.name for path in output.iterdir()} == {"metrics.json", "metrics.png", "report.html"}
    code, text, _ = command_line(*measured, "--clicks", world / "log.csv", "--kind", "clicks", "--json")
    assert (code, json.loads(text)["counts"]["pairs"]) == (0, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to evaluate on: --config FILE, or --clicks FILE --kind KIND, and not both."),
        (("--clicks", "x.csv"), "--clicks needs --kind: records, pairs or clicks."),
        (
            ("--config", "x.toml", "--min-impressions", "5"),
            "--min-impressions belongs to --clicks; a configuration names",
        ),
        (("--clicks", "x.csv", "--kind", "clicks", "--split", "test"), "--split belongs to --config; a file of clicks"),
        (("--clicks", "x.csv", "--kind", "clicks"), "x.csv: there is no such file. Check the path."),
        (("--config", "ranker.toml", "--split", "best"), "There is no split 'best': choose train, valid or test."),
        (("--config", "ranker.toml"), "The split test of ranker.toml is empty: raise its share in data.fractions."),
    ],
)
def test_mistakes(
    world: Path,
    tmp_path: Path,
    command_line: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = sections(world)
    changed["data"]["fractions"] = [0.5, 0.5, 0]
    write_config(tmp_path / "ranker.toml", changed)
    code, _, error = command_line("evaluate", "click-ranker", tmp_path, *arguments)
    assert code == 1
    assert message in " ".join(error.split())


def test_a_recall_model_is_needed(world: Path, tmp_path: Path, command_line: Run) -> None:
    changed = sections(world)
    changed["model"]["recall"] = str(tmp_path)
    config = write_config(tmp_path / "ranker.toml", changed)
    code, _, error = command_line("train", "click-ranker", "--config", config, "--output", tmp_path / "run")
    assert code == 1
    assert "holds no card.json" in " ".join(error.split())
    assert not (tmp_path / "run").exists()
