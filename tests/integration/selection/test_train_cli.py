"""``shopvision train clik`` end to end, its mistakes, and several processes against one."""

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
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.predict import PlanRanker
from shopvision.selection.clik.train import train_clik
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.integration.first_step import save_first_gradients
from tests.unit.selection.clik_world import RANDOM_MRR, World, make_world
from worker.cli.train import app

METHODS = ("clik", "triplet")
COMMAND_THAT_SAVES_GRADIENTS_FIRST = """
import sys
from pathlib import Path
from shopvision.selection.clik import train
from tests.integration.selection.test_train_cli import first_gradients
from worker.cli.main import main

folder, real = Path(sys.argv[1]), train.train_clik

def both(config, run):
    first_gradients(folder, run.process)
    return real(config, run)

train.train_clik = both
sys.argv = ["shopvision", "train", "clik", "--config", f"{folder}/frozen.toml", "--output", f"{folder}/two", "--json"]
main()
"""


def first_gradients(folder: Path, process: Process) -> None:
    """Write the gradients of the first step of ``folder/METHOD.toml`` to ``folder/METHOD-WORLD.pt``."""
    for method in METHODS:
        config = load_config(folder / f"{method}.toml", ClikConfig)
        run = f"{method}-{process.world}"
        save_first_gradients(
            folder / f"{run}.pt", partial(train_clik, config, TrainingRun(output=folder / run, process=process))
        )
        process.wait()


def write_config(path: Path, sections: dict[str, dict[str, Any]]) -> Path:
    lines = []
    for name, values in sections.items():
        # JSON is TOML for texts, numbers, lists and booleans.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def call(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, ["clik", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world", dropout=0.0)


@pytest.mark.usefixtures("database")
def test_from_a_table_to_a_model_that_ranks_plans(
    world: World, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    config = write_config(tmp_path / "clik.toml", world.sections(epochs=2))
    report = call("--config", config, "--output", tmp_path / "run", "--activate")
    assert report["activated"]
    assert report["exhibitions"] == {"train": 42, "valid": 18, "test": 0}
    assert report["metrics"]["mrr"] > 1.5 * RANDOM_MRR
    serving = models.active("plan_ranker")
    assert serving.spec == report["spec"]
    ranked = PlanRanker(models.local_copy(serving))({"name": "summer sale"}, sorted(world.images.iterdir())[:5])
    assert len(ranked) == 5
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        call("--config", config, "--output", tmp_path / "run")
    assert call("--config", config, "--output", tmp_path / "run", "--resume")["spec"] == report["spec"]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"epoch": 2}, r"clik\.toml: train\.epoch is unknown; there are epochs, weight_decay"),
        ("data", {"label": "sales"}, "sales"),
        ("model", {"text": "local-dir:/nowhere"}, "/nowhere holds no config.json"),
        ("model", {"image": "wheel:none"}, "no importer for the wheel 'none'"),
        ("refine", {"min_products": 11, "candidates": 11}, "No exhibition is left for train"),
        ("train", {"select_by": "f1"}, r'select_by = "f1" is unknown; there are mrr'),
        ("model", {"max_length": 600}, "max_length 600 is "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    world: World, tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    sections = world.sections()
    sections[section] |= changes
    config = write_config(tmp_path / "clik.toml", sections)
    with pytest.raises(UserError, match=message) as caught:
        call("--config", config, "--output", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_two_processes_learn_what_one_does(world: World, tmp_path: Path) -> None:
    """Full fine-tuning, first step: both encoders, crops, the bank, micro-batches. Frozen: a whole run by command."""
    for method in METHODS:
        sections = world.sections(
            frozen=False, method=method, matching_weight=1.0, temperature=0.5, word_dropout=0.0, groups=2, micro_batch=5
        )
        write_config(tmp_path / f"{method}.toml", sections)
    write_config(tmp_path / "frozen.toml", world.sections(epochs=1))
    (tmp_path / "script.py").write_text(COMMAND_THAT_SAVES_GRADIENTS_FIRST)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-8000:]

    first_gradients(tmp_path, Process())
    for method in METHODS:
        ones, twos = (torch.load(tmp_path / f"{method}-{world}.pt", weights_only=True) for world in (1, 2))
        assert len(ones) == len(twos) > 50
        for one, two in zip(ones, twos, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(two, one, rtol=1e-5, atol=2e-6)

    alone = call("--config", tmp_path / "frozen.toml", "--output", tmp_path / "one")
    assert json.loads(done.stdout)["metrics"] == pytest.approx(alone["metrics"], abs=0.02)
    one, two = (load_file(tmp_path / run / "model/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if name != "memory_bank":  # the same rows in another order
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-3)
