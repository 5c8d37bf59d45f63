"""Trainings that are stages of another one: how far they are, and what is left of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from shopvision.training.checkpointing import Checkpoints
from shopvision.training.run import TrainingProgress, TrainingRun


def as_stage(run: TrainingRun, stage: str, epochs: int) -> Callable[[TrainingProgress], None]:
    """Shows the progress of a training of so many epochs as that of a stage of ``run``."""

    def show(progress: TrainingProgress) -> None:
        done = (progress.epoch - 1) * progress.steps_per_epoch + progress.step
        run.on_stage(stage, done, epochs * progress.steps_per_epoch)

    return show


def forget_checkpoints(run: TrainingRun, stage: str) -> None:
    """They are not needed any more once the model is written; the metrics stay."""
    shutil.rmtree(Checkpoints(run.output / stage).folder, ignore_errors=True)
