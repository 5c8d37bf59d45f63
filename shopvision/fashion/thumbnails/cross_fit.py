"""How sure a linear layer is of pictures that it did not learn from: a layer that was taught without them is asked.

A part of some hundred pictures is too few to calibrate on: of sixteen, luck decides. On a frozen encoder a layer is
taught in seconds, so all training pictures say how sure layers are of what they have not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.learner import ClassifierLearner, Inputs
from shopvision.fashion.thumbnails.network import ClassifierNetwork
from shopvision.images.preprocessing import Preprocessing
from shopvision.training.loop import fit

if TYPE_CHECKING:
    from shopvision.training.run import TrainingProgress, TrainingRun

FOLDER = "cross_fit"  # of the run; its layers are not needed any more once they were asked


def held_out_logits(
    make: Callable[[], ClassifierNetwork],
    config: ClassifierConfig,
    preprocessing: Preprocessing,
    run: TrainingRun,
    *,
    folds: NDArray[np.int64],
    train: Inputs,
    valid: Inputs,
    identity: Mapping[str, Any],
) -> NDArray[np.float64]:
    """Teach a layer for each fold without its pictures, and ask it of them.

    Args:
        make: a network on the frozen encoder, whose linear layer is as it was before the first step.
        config: the recipe.
        preprocessing: of the pictures.
        run: of the classifier itself.
        folds: (n,) number of each training picture's fold.
        train: vectors of n pictures.
        valid: to choose each layer's best epoch on.
        identity: of the run.

    Returns:
        (n, classes) logits.

    Raises:
        JobError: the loss is not finite.
    """
    count = int(folds.max()) + 1
    logits = np.empty((len(folds), len(train.data.classes)))
    for fold in range(count):
        learnt, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        part = replace(
            run,
            # A resumed run may ask for another number of folds, whose layers learnt from other pictures.
            output=run.output / FOLDER / f"{fold + 1}-of-{count}",
            on_progress=_as_stage(run, f"calibration {fold + 1} of {count}", config.train.epochs),
        )
        network = make()
        learner = ClassifierLearner(
            network, config, preprocessing, train=train.rows(learnt), valid=valid, process=run.process
        )
        fit(learner, config.train, part, identity=identity, patience=config.train.patience)
        network.eval()
        with torch.no_grad():
            found = network.logits(train.take(held_out, None).to(run.process.device))
        logits[held_out] = found.cpu().double().numpy()
    return logits


def _as_stage(run: TrainingRun, stage: str, epochs: int) -> Callable[[TrainingProgress], None]:
    def show(progress: TrainingProgress) -> None:
        done = (progress.epoch - 1) * progress.steps_per_epoch + progress.step
        run.on_stage(stage, done, epochs * progress.steps_per_epoch)

    return show
