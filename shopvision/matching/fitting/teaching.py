"""Teaching one pair model: the loop, the soup of its epochs, and the calibration of what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shopvision.evaluation.calibration import fit_isotonic, fit_temperature
from shopvision.evaluation.thresholds import Floats
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.pair_model import Beginning
from shopvision.matching.fitting.config import MatcherConfig, TrainConfig
from shopvision.matching.fitting.inputs import Pictures
from shopvision.matching.fitting.learner import MatcherLearner, validation_metrics
from shopvision.matching.fitting.learners import make_learner
from shopvision.matching.fitting.soups import greedy_soup, uniform_soup
from shopvision.models.weights import read_tensors
from shopvision.training.checkpointing import Checkpoints
from shopvision.training.loop import LOWER_IS_BETTER, FitResult, fit
from shopvision.training.run import TrainingRun


@dataclass(frozen=True)
class Taught:
    """A pair model that has learnt.

    Attributes:
        learner: holds it.
        result: of the loop.
        soup: epochs whose average it is; empty without a soup.
        metrics: of validation.
        validation_logits: (validation pairs,) log-odds.
        calibration: fitted on them.
    """

    learner: MatcherLearner[Any, Any]
    result: FitResult
    soup: tuple[int, ...]
    metrics: dict[str, float]
    validation_logits: Floats
    calibration: dict[str, Any]


def teach(
    beginning: Beginning,
    config: MatcherConfig,
    run: TrainingRun,
    *,
    splits: Mapping[str, PairTable],
    pictures: Mapping[str, Pictures | None],
    identity: Mapping[str, Any],
) -> Taught:
    """Teach the model, which lies on the process's device.

    Args:
        beginning: the model.
        config: the recipe; its precision is settled, not ``auto``.
        run: where checkpoints go.
        splits: labelled pairs by the names ``train`` and ``valid``.
        pictures: of their items.
        identity: what must not change between an interrupted run and its continuation.

    Raises:
        UserError: the processes cannot share the steps, or the run was another one.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    train: TrainConfig = config.train
    learner = make_learner(
        beginning, config.model, train, config.distillation, splits=splits, pictures=pictures, process=run.process
    )
    result = fit(learner, train, run, identity=identity, keep_epochs=train.soup != "none")
    soup, metrics = _cook(learner, train, Checkpoints(run.output)), result.metrics
    if soup:
        metrics = learner.evaluate()
    logits = learner.validation_logits()
    fit_calibration = fit_isotonic if train.calibration == "isotonic" else fit_temperature
    return Taught(learner, result, soup, metrics, logits, fit_calibration(logits, splits["valid"].labels))


def _cook(learner: MatcherLearner[Any, Any], config: TrainConfig, checkpoints: Checkpoints) -> tuple[int, ...]:
    """Give the learner the soup of epochs that the configuration asks for; returns them."""
    if config.soup == "none":
        return ()
    epochs = [read_tensors(path) for path in checkpoints.epochs()]
    if config.soup == "uniform":
        learner.load(uniform_soup(epochs))
        return tuple(range(1, len(epochs) + 1))
    metric = "f1" if config.select_by == "last" else config.select_by
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def score(tensors: dict[str, Any]) -> float:
        learner.load(tensors)
        logits = learner.validation_logits()
        # A mixture may compute nothing although its ingredients do; it loses, and the others are not lost with it.
        finite = bool(np.isfinite(logits).all())
        return sign * validation_metrics(logits, learner.valid.labels)[metric] if finite else math.nan

    soup, chosen = greedy_soup(epochs, score)
    learner.load(soup)
    return tuple(sorted(position + 1 for position in chosen))
