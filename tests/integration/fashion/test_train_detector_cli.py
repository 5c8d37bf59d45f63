"""``shopvision train detector`` killed and continued, and its model in the registry."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from shopvision import models
from shopvision.fashion.detection.predict import load_detector
from tests.integration.training_commands import train, values, write_config
from tests.unit.fashion.boxes_world import world

EPOCHS = 3


@pytest.fixture
def config(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", num_classes=7)
    timm.models.save_for_hf(network, tmp_path / "backbone", safe_serialization=True)
    sections: dict[str, dict[str, Any]] = {
        "data": {"boxes": str(world(tmp_path / "photos", 8)), "valid_fraction": 0.25},
        "model": {
            "image": f"local-dir:{tmp_path / 'backbone'}", "longest_side": 64, "channels": 64, "head_convs": 1,
            "frozen_stride": 4,
        },
        "train": {"epochs": EPOCHS, "lr": 3e-3},
    }  # fmt: skip
    return write_config(tmp_path / "detector.toml", sections)


def killed_after_an_epoch(config: Path, output: Path) -> None:
    """A training process that is killed while it trains."""
    code = "from worker.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "detector", "--config", config, "--output", output]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    with subprocess.Popen([*map(str, command), "--device", "cpu"], env=environment, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(output.glob("checkpoints/epoch-*")):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -9, process.stderr.read() if process.stderr else ""
    assert not (output / "model").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_killed_training_goes_on_and_serves(
    config: Path, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    """Continued, it ends with the very weights of a run that nobody disturbed."""
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    whole = train("detector", "--config", config, "--output", tmp_path / "whole", "--device", "cpu")
    killed_after_an_epoch(config, tmp_path / "killed")
    again = ("detector", "--config", config, "--output", tmp_path / "killed", "--resume", "--device", "cpu")
    resumed = train(*again, "--activate", "--force")  # so small a detector may find nothing
    assert values(resumed) == values(whole)
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    serving = models.active("fashion_detector")
    assert resumed["activated"]
    assert serving.spec == resumed["name"] == whole["name"]
    assert load_detector(models.local_copy(serving), device="cpu").labels == ("bag", "dress")
