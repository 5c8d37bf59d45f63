"""Trainings that are stages of another one: how far they are, and what is left of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from shopvision.training.checkpointing import Checkpoints
from shopvision.training.run import TrainingProgress, TrainingRun

if TYPE_CHECKING:
    from shopvision.matching.families.pair_model import Beginning


def as_stage(run: TrainingRun, stage: str, epochs: int) -> Callable[[TrainingProgress], None]:
    """Shows the progress of a training of so many epochs as that of a stage of ``run``."""

    def show(progress: TrainingProgress) -> None:
        done = (progress.epoch - 1) * progress.steps_per_epoch + progress.step
        run.on_stage(stage, done, epochs * progress.steps_per_epoch)

    return show


def stage_of(run: TrainingRun, stage: str, epochs: int) -> TrainingRun:
    """A training of so many epochs whose files lie below those of ``run``, in a folder of its name."""
    return replace(run, output=run.output / stage, on_progress=as_stage(run, stage, epochs))


def with_what_was_learnt(beginning: Beginning, parts: Iterable[str]) -> Beginning:
    """The model with the weights that these submodules have now, which others of its recipe begin with as well."""
    network = beginning.model.network
    weights = {
        name: {key: tensor.cpu().clone() for key, tensor in network.get_submodule(name).state_dict().items()}
        for name in parts
    }
    return replace(beginning, start=replace(beginning.start, weights=weights))


def forget_checkpoints(run: TrainingRun, stage: str) -> None:
    """They are not needed any more once the model is written; the metrics stay."""
    shutil.rmtree(Checkpoints(run.output / stage).folder, ignore_errors=True)
