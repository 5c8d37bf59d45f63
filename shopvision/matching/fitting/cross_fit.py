"""Cross-fitting: models that have not seen a part of the training pairs tell how likely these are.

Their probabilities are on the scale of the model itself, because all are calibrated on the same validation pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from shopvision.errors import JobError
from shopvision.evaluation.calibration import apply
from shopvision.evaluation.thresholds import ENOUGH, Evidence, Floats, fewest_positives
from shopvision.items.pair_folds import Fold, item_folds
from shopvision.items.pair_table import PairTable
from shopvision.matching.families._parts import Weights
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.fitting.config import MatcherConfig, ThresholdsConfig
from shopvision.matching.fitting.contrastive import contrast
from shopvision.matching.fitting.inputs import Pictures
from shopvision.matching.fitting.learners import make_inputs
from shopvision.matching.fitting.stages import as_stage
from shopvision.matching.fitting.teaching import teach
from shopvision.training.run import TrainingRun

FOLDER = "cross_fit"  # of the run; its models are not needed any more once the evidence is kept


def plan_folds(config: ThresholdsConfig, train: PairTable, valid: PairTable, seed: int) -> list[Fold]:
    """The folds to cross-fit with; none where that is not wanted, not needed, or could not help.

    It is needed where validation has few pairs of the same item for what is asked, and could help where these and those
    of training together can show it. Neither looks at what a model makes of them.

    Raises:
        UserError: so few items, or so connected, that folds cannot be made.
    """
    if not config.cross_fit:
        return []
    least, there = fewest_positives(config.promise), int((valid.labels == 1).sum())
    if there >= ENOUGH * least or there + int((train.labels == 1).sum()) < least:
        return []
    return item_folds(train, config.cross_fit, seed)


def with_cross_fitted(
    evidence: Evidence,
    folds: list[Fold],
    config: MatcherConfig,
    run: TrainingRun,
    *,
    weights: Weights | None,
    splits: Mapping[str, PairTable],
    pictures: Mapping[str, Pictures | None],
    identity: Mapping[str, object],
) -> Evidence:
    """The evidence, and with it training pairs as scored by models of the same recipe that saw none of their items.

    Args:
        evidence: of validation.
        folds: from ``plan_folds``; one model is taught for each, checkpoints lying below the folder of the run.
        config: the recipe; its precision is settled, not ``auto``.
        run: of the model itself.
        weights: what these models begin with, where that is more than the encoders' own and no label made it so.
        splits: labelled pairs by the names ``train`` and ``valid``.
        pictures: of their items.
        identity: of the run.

    Raises:
        UserError: a fold has too few pairs for the steps of the recipe.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    for number, fold in enumerate(folds, start=1):
        stage = f"cross-fitting {number} of {len(folds)}"
        part = replace(
            run,
            # A resumed run may ask for another number of folds, whose models learnt from other pairs.
            output=run.output / FOLDER / f"{number}-of-{len(folds)}",
            on_progress=as_stage(run, stage, config.train.epochs),
        )
        try:
            probabilities = _held_out(
                fold, config, part, weights=weights, splits=splits, pictures=pictures, identity=identity
            )
        except JobError as error:
            raise JobError(
                f"In {stage}: {error} The model itself is taught; --resume with cross_fit = 0 keeps it."
            ) from error
        evidence = evidence.and_cross_fitted(probabilities, splits["train"].labels[fold.held_out])
    return evidence


def _held_out(
    fold: Fold,
    config: MatcherConfig,
    run: TrainingRun,
    *,
    weights: Weights | None,
    splits: Mapping[str, PairTable],
    pictures: Mapping[str, Pictures | None],
    identity: Mapping[str, object],
) -> Floats:
    """(held out,) probabilities of one fold's model."""
    train = splits["train"]
    learnt, held_out = train.select(fold.learn), train.select(fold.held_out)
    beginning = begin_training(config.model, config.texts, learnt.used_items(), seed=config.train.seed, weights=weights)
    beginning.model.network.to(run.process.device)
    labels = {"train": learnt, "valid": splits["valid"]}
    if config.contrastive is not None:
        beginning, _ = contrast(beginning, config, run, splits=labels, identity=identity)
    taught = teach(
        beginning,
        config,
        run,
        splits=labels,
        pictures={"train": _pictures_of(learnt, train, pictures["train"]), "valid": pictures["valid"]},
        identity=identity,
    )
    inputs = make_inputs(beginning.model, held_out, _pictures_of(held_out, train, pictures["train"]))
    return apply(taught.calibration, taught.learner.logits_of(inputs))


def _pictures_of(part: PairTable, whole: PairTable, pictures: Pictures | None) -> Pictures | None:
    if pictures is None:
        return None
    return pictures.select(np.searchsorted(whole.item_rows(), part.item_rows()))
