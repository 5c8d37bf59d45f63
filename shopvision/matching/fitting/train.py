"""Training a matcher: pairs, encoders, the loop, and at the end a calibrated model version folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shopvision.database import connect
from shopvision.encoders.image_encoder import best_precision
from shopvision.errors import UserError
from shopvision.evaluation.calibration import apply, choose_thresholds, fit_isotonic, fit_temperature
from shopvision.images import PictureDoor
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.card import save_matcher
from shopvision.matching.families.losses import LossOptions
from shopvision.matching.fitting.config import FRACTIONS, MatcherConfig
from shopvision.matching.fitting.data import read_items, read_pairs, reviewed_pairs, split_by_component
from shopvision.matching.fitting.inputs import PairInputs
from shopvision.matching.fitting.learner import MatcherLearner
from shopvision.matching.fitting.preparation import PicturePreparation, Untrained, fetch_model
from shopvision.matching.fitting.sampling import LengthSampler, NegativesSampler, Sampler
from shopvision.matching.fitting.soups import greedy_soup, uniform_soup
from shopvision.models.card import ModelCard
from shopvision.models.weights import read_tensors
from shopvision.settings import get_settings
from shopvision.training.checkpointing import Checkpoints, require_fresh
from shopvision.training.distributed import Process
from shopvision.training.loop import LOWER_IS_BETTER, fit
from shopvision.training.results import TrainingReport, write_unreadable
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
    untrained = fetch_model(config, splits["train"])
    untrained.network.to(process.device)
    train_config = config.train
    if train_config.precision == "auto":
        fastest: Any = str(best_precision(process.device)).removeprefix("torch.")
        train_config = train_config.model_copy(update={"precision": fastest})
    fingerprint = {name: splits[name].fingerprint() for name in ("train", "valid")}
    with ExitStack() as stack:
        settings = get_settings().with_image_roots(config.data.picture_folders)
        door = stack.enter_context(PictureDoor(settings))
        preparation = PicturePreparation(
            config, untrained, cache=settings.cache_dir, door=door, process=process, on_stage=run.on_stage
        )
        train, valid = (
            PairInputs(splits[name], untrained.packer, preparation.pictures(splits[name].used_items()))
            for name in ("train", "valid")
        )
        learner = MatcherLearner(
            untrained.network,
            untrained.arguments.axes,
            train_config,
            _sampler(config, splits["train"], train, process),
            train=train,
            valid=valid,
            options=LossOptions(config.model.margin, config.model.scale),
            symmetric=untrained.arguments.symmetric,
            frozen_layers=config.model.frozen_layers,
            frozen_image=config.model.frozen_image,
            process=process,
        )
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
    write_unreadable(run.output, preparation.unreadable)
    fit_calibration = fit_isotonic if config.train.calibration == "isotonic" else fit_temperature
    calibration = fit_calibration(logits, valid.labels)
    source = config.data.pairs.name if config.data.pairs else "reviewed pairs of the catalogue"
    card = _save(
        run.model_folder,
        config,
        untrained,
        calibration=calibration,
        thresholds=choose_thresholds(apply(calibration, logits), valid.labels),
        training_data=f"{source}, {len(train):,} pairs, content sha256 {fingerprint['train']}",
        metrics=metrics,
    )
    return MatcherReport(
        folder=run.model_folder,
        card=card,
        best_epoch=result.best_epoch,
        soup=soup,
        metrics=metrics,
        pairs={"train": len(train), "valid": len(valid)},
        unreadable=len(preparation.unreadable),
        seconds_per_epoch=result.seconds_per_epoch,
    )


def read_splits(config: MatcherConfig) -> dict[str, PairTable]:
    """The pairs to train and validate on, and those of ``test`` where the configuration splits some off.

    Raises:
        UserError: the pairs cannot be used: there are none, some have no label, or all have the same.
    """
    source = config.data
    if source.pairs is None:
        with connect() as connection:
            table, where = reviewed_pairs(connection), "The catalogue's reviews"
    else:
        items = None if source.items is None else read_items(source.items, images=source.images)
        table, where = read_pairs(source.pairs, items, images=source.images), str(source.pairs)
    _require_labels(table, where)
    if source.valid is not None:
        splits = {"train": table, "valid": read_pairs(source.valid, items, images=source.images)}
        _require_labels(splits["valid"], str(source.valid))
    else:
        shares = zip(("train", "valid", "test"), source.fractions or FRACTIONS, strict=True)
        splits = split_by_component(table, {name: share for name, share in shares if share}, config.train.seed)
        for name in ("train", "valid"):
            _require_labels(splits[name], f"{where}, its share for {name},")
    if config.family.reads_text and not any(item.title or item.attributes for item in splits["train"].used_items()):
        raise UserError(f"The items of {where} have neither titles nor attributes: name their file with data.items.")
    return splits


def _require_labels(table: PairTable, where: str) -> None:
    if not len(table):
        raise UserError(f"{where} holds no pairs: name a file with labelled pairs, or import reviews.")
    if unlabelled := int((table.labels < 0).sum()):
        raise UserError(f"{where} holds {unlabelled:,} pairs without a label of {len(table):,}: label them 0 or 1.")
    if len(np.unique(table.labels)) == 1:
        raise UserError(
            f"{where} holds {len(table):,} pairs that are all labelled {table.labels[0]}: learning needs pairs of both "
            "labels."
        )


def _sampler(config: MatcherConfig, table: PairTable, train: PairInputs, process: Process) -> Sampler:
    settings = config.train
    if config.model.axes.loss == "mnr":
        return NegativesSampler(
            table,
            batch_size=settings.batch_size,
            hard_negatives=settings.hard_negatives,
            world=process.world,
            seed=settings.seed,
            swap=settings.swap_pairs,
        )
    lengths = train.pair_lengths()
    if config.family.interaction == "two_tower":
        items = train.item_lengths()
        lengths = np.maximum(items[train.left], items[train.right])
    return LengthSampler(
        lengths,
        batch_size=settings.batch_size,
        world=process.world,
        seed=settings.seed,
        swap=settings.swap_pairs,
    )


def _cook(learner: MatcherLearner, config: MatcherConfig, checkpoints: Checkpoints) -> tuple[int, ...]:
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


def _save(
    folder: Path,
    config: MatcherConfig,
    untrained: Untrained,
    *,
    calibration: dict[str, Any],
    thresholds: dict[str, float],
    training_data: str,
    metrics: dict[str, float],
) -> ModelCard:
    """Write the model version."""
    text, image = untrained.text, untrained.image
    encoders = {"text": text, "image": image.card if image else None}
    used = {name: encoder for name, encoder in encoders.items() if encoder is not None}
    return save_matcher(
        folder,
        untrained.network,
        untrained.arguments,
        text.tokenizer if text else None,
        image.preprocessing if image else None,
        name=config.model.name,
        source=f"train matcher: {' + '.join(encoder.source for encoder in used.values())}",
        calibration=calibration,
        thresholds=thresholds,
        image_encoder=image.network if image and config.family.frozen_image else None,
        licence=", ".join(f"{name} encoder {encoder.licence}" for name, encoder in used.items()),
        training_data=training_data,
        metrics={name: round(value, 6) for name, value in metrics.items()},
    )
