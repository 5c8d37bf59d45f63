"""``shopvision train matcher`` end to end, its mistakes, and several processes against one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from shopvision import models
from shopvision.errors import UserError
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.integration.training_commands import (
    assert_same_first_gradients,
    assert_same_weights,
    save_first_gradients,
    train,
    train_in_two_processes,
    values,
    write_config,
)
from tests.unit.matching.matcher_world import PAIRS, World, make_world
from worker.cli.models import app as model_commands
from worker.cli.train import app as train_commands

NO_DROPOUT: dict[str, Any] = {"dropout": 0.0}
# Five pairs of two processes are shares of three and two; the loss mnr needs equal ones and drops what is left over.
FIRST_STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "one_tower": (
        "text_one_tower", {"model": NO_DROPOUT, "batch_size": 5, "positive_weight": 3.0, "micro_batch": 2},
    ),
    "negatives": (
        "text_two_tower", {"model": NO_DROPOUT | {"loss": "mnr", "scale": 5.0}, "batch_size": 8, "micro_batch": 3},
    ),
    "pictures": ("image_two_tower", {"model": {"frozen_image": False, "loss": "contrastive"}, "batch_size": 5}),
}  # fmt: skip


def first_gradients(folder: Path, process: Process) -> None:
    """Write the gradients of the first step of ``folder/NAME.toml`` to ``folder/NAME-WORLD.pt``."""
    for name in FIRST_STEPS:
        config = load_config(folder / f"{name}.toml", MatcherConfig)
        run = f"{name}-{process.world}"
        with pytest.MonkeyPatch.context() as patch:
            # Whole pictures: crops are drawn by each process for itself.
            patch.setattr("shopvision.matching.fitting.inputs.PixelPictures.take", whole_pictures)
            save_first_gradients(
                folder / f"{run}.pt", partial(train_matcher, config, TrainingRun(output=folder / run, process=process))
            )
        process.wait()


def whole_pictures(pictures: Any, items: Any, _: object) -> torch.Tensor:
    pixels: torch.Tensor = pictures.reader.read([pictures.uris[item] for item in items.tolist()], None)
    return pixels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.usefixtures("database")
def test_from_pairs_to_a_model_that_serves(
    world: World, tmp_path: Path, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    config = write_config(tmp_path / "matcher.toml", world.sections("text_two_tower", epochs=2))
    report = train("matcher", "--config", config, "--output", tmp_path / "run", "--activate")
    assert report["activated"]
    assert report["counts"]["validation pairs"] + report["counts"]["pairs for train"] == PAIRS
    assert report["metrics"]["f1"]["value"] > 0.9
    assert report["facts"]["thresholds"].keys() == {"same", "decision", "different"}
    assert models.active("pair_scorer").spec == report["name"]
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        train("matcher", "--config", config, "--output", tmp_path / "run")
    again = ["--config", config, "--output", tmp_path / "run", "--resume"]
    assert train("matcher", *again)["name"] == report["name"]

    def refuse(role: str, spec: str, **_: object) -> None:
        raise UserError(f"{spec} shows no skill as {role}")

    monkeypatch.setattr(models, "activate", refuse)
    told = CliRunner().invoke(train_commands, ["matcher", *map(str, again), "--activate", "--json"])
    assert str(told.exception) == f"{report['name']} shows no skill as pair_scorer"
    assert json.loads(told.stdout)["metrics"] == report["metrics"]  # what was learnt is told all the same
    assert not json.loads(told.stdout)["activated"]


@pytest.mark.usefixtures("database")
def test_another_promise_of_a_stored_version_takes_a_command_and_no_training(
    world: World, tmp_path: Path, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    monkeypatch.setattr("worker.cli.output.console.width", 300)
    config = write_config(tmp_path / "matcher.toml", world.sections("text_two_tower", epochs=2))
    run = ["matcher", "--config", config, "--output", tmp_path / "run"]
    with pytest.raises(UserError, match=r"^precision is 95\.0: give a share between 0\.5 and 1"):
        train(*run, "--precision", "95")
    trained = train(*run, "--activate")
    assert trained["facts"]["thresholds"]["same"] == 1
    note = "Precision 0.95 was not shown, so nothing is called same: at the present rate"
    assert trained["notes"][0].startswith(note)
    assert trained["facts"]["promises"]["same, precision 0.95"].startswith("was not shown")

    asked = ["--precision", "0.6", "--missed", "0.4", "--confidence", "0.6"]
    command = ["thresholds", trained["name"], *asked, "--tag", "lenient", "--activate", "--json"]
    chosen = json.loads(CliRunner().invoke(model_commands, command, catch_exceptions=False).stdout)
    assert chosen["spec"] == "tiny:lenient" == models.active("pair_scorer").spec
    assert chosen["thresholds"]["different"] < chosen["thresholds"]["same"] < 1
    assert chosen["promises"]["asked"] == {"precision": 0.6, "missed": 0.4, "confidence": 0.6}
    assert models.find(trained["name"]).card.thresholds["same"] == 1  # a version never changes
    shown = CliRunner().invoke(model_commands, ["show", "tiny:lenient"], catch_exceptions=False).stdout
    (line,) = [line for line in shown.splitlines() if "same, precision 0.6" in line]
    assert f"from {chosen['thresholds']['same']:.4f} on: " in line
    again = CliRunner().invoke(model_commands, ["thresholds", "tiny:lenient", "--missed", "0.3", "--json"])
    asked_again = {"precision": 0.6, "missed": 0.3, "confidence": 0.6}  # what is not given stays
    assert json.loads(again.stdout)["promises"]["asked"] == asked_again
    (line,) = [line for line in shown.splitlines() if "evidence, at confidence 0.6" in line]
    assert "60 validation pairs (20 the same)" in line
    with pytest.raises(UserError, match="tag 'a b': use letters, digits"):
        CliRunner().invoke(model_commands, ["thresholds", "tiny:lenient", "--tag", "a b"], catch_exceptions=False)
    with pytest.raises(UserError, match="tiny:lenient exists with other content"):
        CliRunner().invoke(model_commands, ["thresholds", trained["name"], "--tag", "lenient"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"epoch": 2}, r"matcher\.toml: train\.epoch is unknown; there are epochs, weight_decay"),
        ("train", {"select_by": "mrr"}, r"train\.select_by: Input should be 'f1', 'average_precision'"),
        ("data", {"pairs": "/nowhere/pairs.csv"}, "/nowhere/pairs.csv"),
        ("data", {"items": "/nowhere/items.jsonl"}, "/nowhere/items.jsonl"),
        ("model", {"text": "local-dir:/nowhere"}, "/nowhere holds no config.json"),
        ("model", {"name": "our best"}, r"matcher\.toml: model\.name: String should match pattern"),
        ("model", {"loss": "mnr"}, "do not go together in text_one_tower. Legal are"),
        (
            "model",
            {"family": "perceptron"},
            "There is no family 'perceptron' of pair models: use one of agreement, coca, gcn",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    world: World, tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    sections = world.sections()
    sections[section] |= changes
    config = write_config(tmp_path / "matcher.toml", sections)
    with pytest.raises(UserError, match=message) as caught:
        train("matcher", "--config", config, "--output", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # two processes import everything anew; the loop itself is compared with two of them for CLIK
def test_two_processes_learn_what_one_does(world: World, tmp_path: Path) -> None:
    """The gradients of the first step of several models, then a whole run by command."""
    for name, (family, changes) in FIRST_STEPS.items():
        write_config(tmp_path / f"{name}.toml", world.sections(family, **changes))
    write_config(tmp_path / "whole.toml", world.sections(epochs=1, model=NO_DROPOUT))
    two = train_in_two_processes(tmp_path, "matcher", "whole.toml", train_matcher, __name__)
    first_gradients(tmp_path, Process())
    for name in FIRST_STEPS:
        assert_same_first_gradients(tmp_path, name, at_least=20, rtol=1e-4)
    alone = train("matcher", "--config", tmp_path / "whole.toml", "--output", tmp_path / "one")
    assert values(two) == pytest.approx(values(alone), abs=1e-3)
    assert_same_weights(tmp_path)
