"""Training a matcher: pairs, encoders, the loop, and at the end a calibrated model version folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shopvision.encoders.devices import best_precision
from shopvision.evaluation.calibration import apply, choose_thresholds, fit_isotonic, fit_temperature
from shopvision.images import PictureDoor
from shopvision.matching.families.card import save_matcher
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.learner import MatcherLearner
from shopvision.matching.fitting.learners import make_learner
from shopvision.matching.fitting.preparation import PicturePreparation
from shopvision.matching.fitting.soups import greedy_soup, uniform_soup
from shopvision.models.weights import read_tensors
from shopvision.settings import get_settings
from shopvision.training.checkpointing import Checkpoints, require_fresh
from shopvision.training.loop import LOWER_IS_BETTER, fit
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class MatcherReport(TrainingReport):
    """What the training of a matcher gave; its card has calibrated thresholds.

    Attributes:
        soup: epochs whose average was kept instead of the best one; empty without a soup.
        pairs: per split, how many were trained and validated on.
    """

    soup: tuple[int, ...]
    pairs: dict[str, int]


def train_matcher(config: MatcherConfig, run: TrainingRun) -> MatcherReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: the data, the configuration or the encoders cannot be used; nothing was trained.
        TransientError: a source of pictures is away.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    require_fresh(run.output, resume=run.resume)
    process, splits = run.process, read_splits(config)
    beginning = begin_training(config.model, config.texts, splits["train"].used_items(), seed=config.train.seed)
    beginning.model.network.to(process.device)
    train_config = config.train
    if train_config.precision == "auto":
        fastest: Any = str(best_precision(process.device)).removeprefix("torch.")
        train_config = train_config.model_copy(update={"precision": fastest})
    fingerprint = {name: splits[name].fingerprint() for name in ("train", "valid")}
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        preparation = PicturePreparation(beginning, config.model, run, door)
        pictures = {name: preparation.pictures(splits[name].used_items()) for name in ("train", "valid")}
        learner = make_learner(beginning, config.model, train_config, splits=splits, pictures=pictures, process=process)
        result = fit(
            learner,
            train_config,
            run,
            identity={**config.model_dump(mode="json"), "data content": fingerprint},
            keep_epochs=train_config.soup != "none",
        )
        soup, metrics = _cook(learner, config, Checkpoints(run.output)), result.metrics
        if soup:
            metrics = learner.evaluate()
        logits = learner.validation_logits()
    if not process.is_main:
        return None
    fit_calibration = fit_isotonic if config.train.calibration == "isotonic" else fit_temperature
    labels = splits["valid"].labels
    calibration = fit_calibration(logits, labels)
    source = config.data.pairs.name if config.data.pairs else "reviewed pairs of the catalogue"
    origins = beginning.start.origins
    card = run.save(
        lambda folder: save_matcher(
            folder,
            beginning.model,
            name=config.model.name,
            source=f"train matcher: {' + '.join(origin.source for origin in origins)}",
            calibration=calibration,
            thresholds=choose_thresholds(apply(calibration, logits), labels),
            licence=", ".join(f"{origin.name} encoder {origin.licence}" for origin in origins),
            training_data=f"{source}, {len(splits['train']):,} pairs, content sha256 {fingerprint['train']}",
            metrics={name: round(value, 6) for name, value in metrics.items()},
        ),
        preparation.unreadable,
    )
    return MatcherReport(
        folder=run.model_folder,
        card=card,
        best_epoch=result.best_epoch,
        soup=soup,
        metrics=metrics,
        pairs={name: len(splits[name]) for name in ("train", "valid")},
        unreadable=len(preparation.unreadable),
        seconds_per_epoch=result.seconds_per_epoch,
    )


def _cook(learner: MatcherLearner[Any, Any], config: MatcherConfig, checkpoints: Checkpoints) -> tuple[int, ...]:
    """Give the learner the soup of epochs that the configuration asks for; returns them."""
    if config.train.soup == "none":
        return ()
    epochs = [read_tensors(path) for path in checkpoints.epochs()]
    if config.train.soup == "uniform":
        learner.load(uniform_soup(epochs))
        return tuple(range(1, len(epochs) + 1))
    metric = "f1" if config.train.select_by == "last" else config.train.select_by
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def score(tensors: dict[str, Any]) -> float:
        learner.load(tensors)
        return sign * learner.evaluate()[metric]

    soup, chosen = greedy_soup(epochs, score)
    learner.load(soup)
    return tuple(sorted(position + 1 for position in chosen))
