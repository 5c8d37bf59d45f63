"""``shopvision train matcher`` end to end, its mistakes, and several processes against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from shopvision import models
from shopvision.errors import UserError
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.integration.first_step import save_first_gradients
from tests.unit.matching.matcher_world import PAIRS, World, make_world
from worker.cli.train import app

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
COMMAND_THAT_SAVES_GRADIENTS_FIRST = """
import sys
from pathlib import Path
from shopvision.matching.fitting import train
from tests.integration.matching.test_train_matcher_cli import first_gradients
from worker.cli.main import main

folder, real = Path(sys.argv[1]), train.train_matcher

def both(config, run):
    first_gradients(folder, run.process)
    return real(config, run)

train.train_matcher = both
sys.argv = ["shopvision", "train", "matcher", "--config", f"{folder}/whole.toml", "--output", f"{folder}/two", "--json"]
main()
"""


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


def write_config(path: Path, sections: dict[str, dict[str, Any]]) -> Path:
    lines = []
    for name, values in sections.items():
        # JSON is TOML for texts, numbers, lists and booleans.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def call(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, ["matcher", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.usefixtures("database")
def test_from_pairs_to_a_model_that_serves(world: World, tmp_path: Path, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    config = write_config(tmp_path / "matcher.toml", world.sections("text_two_tower", epochs=2))
    report = call("--config", config, "--output", tmp_path / "run", "--activate")
    assert report["activated"]
    assert sum(report["pairs"].values()) == PAIRS
    assert report["metrics"]["f1"] > 0.9
    assert report["thresholds"].keys() == {"same", "decision", "different"}
    assert models.active("pair_scorer").spec == report["spec"]
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        call("--config", config, "--output", tmp_path / "run")
    assert call("--config", config, "--output", tmp_path / "run", "--resume")["spec"] == report["spec"]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"epoch": 2}, r"matcher\.toml: train\.epoch is unknown; there are epochs, weight_decay"),
        ("train", {"select_by": "mrr"}, r"train\.select_by: Input should be 'f1', 'average_precision'"),
        ("data", {"pairs": "/nowhere/pairs.csv"}, "/nowhere/pairs.csv"),
        ("data", {"items": "/nowhere/items.jsonl"}, "/nowhere/items.jsonl"),
        ("model", {"text": "local-dir:/nowhere"}, "/nowhere holds no config.json"),
        ("model", {"loss": "mnr"}, "do not go together in text_one_tower. Legal are"),
        ("model", {"family": "gcn"}, "There is no family 'gcn' of pair models: use one of image_two_tower"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    world: World, tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    sections = world.sections()
    sections[section] |= changes
    config = write_config(tmp_path / "matcher.toml", sections)
    with pytest.raises(UserError, match=message) as caught:
        call("--config", config, "--output", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_two_processes_learn_what_one_does(world: World, tmp_path: Path) -> None:
    """The gradients of the first step of several models, then a whole run by command."""
    for name, (family, changes) in FIRST_STEPS.items():
        write_config(tmp_path / f"{name}.toml", world.sections(family, **changes))
    write_config(tmp_path / "whole.toml", world.sections(epochs=1, model=NO_DROPOUT))
    (tmp_path / "script.py").write_text(COMMAND_THAT_SAVES_GRADIENTS_FIRST)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-8000:]

    first_gradients(tmp_path, Process())
    for name in FIRST_STEPS:
        ones, twos = (torch.load(tmp_path / f"{name}-{world}.pt", weights_only=True) for world in (1, 2))
        assert len(ones) == len(twos) > 20
        for one, two in zip(ones, twos, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6)

    alone = call("--config", tmp_path / "whole.toml", "--output", tmp_path / "one")
    assert json.loads(done.stdout)["metrics"] == pytest.approx(alone["metrics"], abs=1e-3)
    one, two = (load_file(tmp_path / run / "model/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-3)
