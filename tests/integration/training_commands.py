"""What the tests of the commands `shopvision train` share: configurations, calls, one process compared with two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from shopvision.training.distributed import Process
from worker.cli.train import app

SAVE_FIRST_GRADIENTS_THEN_TRAIN = """
import sys
from importlib import import_module
from pathlib import Path
from worker.cli.main import main

folder, command, config, module, name, test = sys.argv[1:]
training, gradients = import_module(module), import_module(test).first_gradients
real = getattr(training, name)

def both(config, run):
    gradients(Path(folder), run.process)
    return real(config, run)

setattr(training, name, both)
config, output = f"{folder}/{config}", f"{folder}/two"
sys.argv = ["shopvision", "train", command, "--config", config, "--output", output, "--json"]
main()
"""


class FirstStepDone(Exception):  # noqa: N818 - not an error
    """Ends a training after the gradients of its first step."""


def write_config(path: Path, sections: dict[str, dict[str, Any]]) -> Path:
    """A TOML file."""
    lines = []
    for name, values in sections.items():
        # JSON is TOML for texts, numbers, lists and booleans.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def train(*arguments: str | Path) -> Any:
    """What `shopvision train ... --json` prints."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def values(report: Any) -> dict[str, float]:
    """The validation metrics that a training prints."""
    return {name: metric["value"] for name, metric in report["metrics"].items()}


def save_first_gradients(path: Path, train: Callable[[], object]) -> None:
    """Write the gradients, averaged over all processes, of the first step that ``train`` makes; one process writes."""
    average = Process.average_gradients

    def spy(own: Process, parameters: Iterable[nn.Parameter]) -> None:
        weights = list(parameters)
        average(own, weights)
        if own.is_main:
            torch.save([weight.grad for weight in weights], path)
        raise FirstStepDone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "average_gradients", spy)
        with pytest.raises(FirstStepDone):
            train()


def train_in_two_processes(folder: Path, command: str, config: str, training: Callable[..., Any], test: str) -> Any:
    """What `shopvision train COMMAND` prints of a run in ``folder/two``.

    Args:
        folder: holds ``config``.
        command: of `shopvision train`.
        config: the file's name.
        training: what the command calls.
        test: the module whose ``first_gradients(folder, process)`` is called before.
    """
    (folder / "script.py").write_text(SAVE_FIRST_GRADIENTS_THEN_TRAIN)
    arguments = [folder, command, config, training.__module__, training.__name__, test]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(folder / "script.py"), *map(str, arguments),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-8000:]
    return json.loads(done.stdout)


def assert_same_first_gradients(folder: Path, name: str, *, at_least: int, rtol: float, atol: float = 2e-6) -> None:
    """``folder/NAME-1.pt`` of one process and ``folder/NAME-2.pt`` of two agree, and hold so many tensors."""
    ones, twos = (torch.load(folder / f"{name}-{world}.pt", weights_only=True) for world in (1, 2))
    assert len(ones) == len(twos) > at_least
    for one, two in zip(ones, twos, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(two, one, rtol=rtol, atol=atol)


def assert_same_weights(folder: Path, *, but_not: Collection[str] = ()) -> None:
    """The models of the runs ``folder/one`` and ``folder/two`` agree."""
    one, two = (load_file(folder / run / "model/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one.keys() - set(but_not):
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-3)
