"""Encoder, detector and classifier trained by two processes, each to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.train import train_detector
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.train import train_encoder
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.train import train_classifier
from shopvision.models.version_folder import read_card
from shopvision.training.config import load_config
from shopvision.training.distributed import Process, joined
from shopvision.training.run import TrainingRun
from tests.integration.training_commands import (
    assert_same_first_gradients,
    assert_same_weights,
    save_first_gradients,
    write_config,
)
from tests.unit.fashion.boxes_world import world
from tests.unit.fashion.pairs_world import backbone, write_pairs
from tests.unit.fashion.thumbnails_world import folders

LEARN: dict[str, tuple[type[Any], Any]] = {
    "detector": (DetectorConfig, train_detector),
    "classifier": (ClassifierConfig, train_classifier),
    "encoder": (EncoderConfig, train_encoder),
}


def train_all(folder: Path, process: Process) -> None:
    """What each of the processes does: the first step of an encoder, then a whole run of each kind of model."""
    config = load_config(folder / "fine-tuned.toml", EncoderConfig)
    run = TrainingRun(output=folder / f"fine-tuned-{process.world}", process=process)
    save_first_gradients(folder / f"fine-tuned-{process.world}.pt", lambda: train_encoder(config, run))
    for name, (kind, learn) in LEARN.items():
        run = TrainingRun(output=folder / name / ("one" if process.world == 1 else "two"), process=process)
        learn(load_config(folder / f"{name}.toml", kind), run)


def write_configs(folder: Path) -> None:
    image = backbone(folder / "network")
    pairs = str(write_pairs(folder / "shop", 24, views=2))
    encoder = {"pairs": pairs, "valid_fraction": 0.25}
    model = {"image": image, "dimension": 8}
    step = {"batch_size": 8, "micro_batch": 3, "learn_temperature": True}
    write_config(
        folder / "fine-tuned.toml",
        {"data": encoder, "model": model | {"fine_tune": "all"}, "train": step},
    )
    write_config(
        folder / "encoder.toml",
        {
            "data": encoder | {"test_fraction": 0.2, "per_category": True, "least_products": 4},
            "model": model,
            "train": {"epochs": 1, "batch_size": 8, "views": 1},
        },
    )
    write_config(
        folder / "detector.toml",
        {
            "data": {"boxes": str(world(folder / "photos", 8)), "valid_fraction": 0.25},
            "model": {"image": image, "longest_side": 64, "channels": 64, "head_convs": 1},
            "train": {"epochs": 1},
        },
    )
    write_config(
        folder / "classifier.toml",
        {
            "data": {"pictures": str(folders(folder / "thumbnails"))},
            "model": {"image": image},
            "train": {"epochs": 1, "batch_size": 6, "cross_fit": 2},
        },
    )


@pytest.mark.slow  # two processes import everything anew; the loop itself is compared with two of them for CLIK
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    write_configs(tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", __name__]
    done = subprocess.run(
        [*launch, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-8000:]
    train_all(tmp_path, Process())
    assert_same_first_gradients(tmp_path, "fine-tuned", at_least=20, rtol=1e-3, atol=1e-4)
    for name in ("encoder", "classifier"):
        assert_same_weights(tmp_path / name)
    for category in ("bag", "shoes"):
        read_card(tmp_path / "encoder" / "two" / "categories" / category / "model")
    # Photos are changed at random in each process, so that two of them see others than one.
    read_card(tmp_path / "detector" / "two" / "model", "fashion_detector")


if __name__ == "__main__":
    with joined("cpu") as process:
        torch.set_num_threads(1)
        train_all(Path(sys.argv[1]), process)
