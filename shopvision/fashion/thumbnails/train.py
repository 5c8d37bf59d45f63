"""Training a thumbnail classifier: pictures, an encoder, the loop, and at the end a calibrated model version folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from shopvision.errors import UserError
from shopvision.evaluation.calibration import fit_softmax_temperature
from shopvision.evaluation.class_metrics import measure_classes
from shopvision.evaluation.reliability import reliability
from shopvision.fashion.thumbnails.card import save_classifier
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.cross_fit import FOLDER, held_out_logits
from shopvision.fashion.thumbnails.data import LabelledPictures, read_labelled
from shopvision.fashion.thumbnails.learner import ClassifierLearner, Inputs
from shopvision.fashion.thumbnails.network import ClassifierArguments, ClassifierNetwork
from shopvision.fashion.thumbnails.splits import contradictory, fold_by_product, shared_with, split_by_product
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.features import Features
from shopvision.training.loop import fit
from shopvision.training.pixels import PixelReader
from shopvision.training.pretrained import PictureSurvey, PretrainedImage, fetch_image, survey_pictures
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class ClassifierReport(TrainingReport):
    """What the training of a classifier gave.

    Attributes:
        pictures: of training and of validation.
        classes: pictures of training, by class.
    """

    pictures: dict[str, int]
    classes: dict[str, int]


@dataclass(frozen=True)
class _Labelled:
    """Everything that was named: the first ``train`` pictures are to be learnt from, or all of them to be parted."""

    data: LabelledPictures
    train: int


def train_classifier(config: ClassifierConfig, run: TrainingRun) -> ClassifierReport | None:
    """Train, calibrate, and write the best epoch's model version to ``model`` in the folder of the run.

    Returns:
        What it gave, in the main process; None in the others.

    Raises:
        UserError: the data, the configuration or the encoder cannot be used; nothing was trained.
        TransientError: a source of pictures is away for the moment; what was encoded is kept.
        JobError: the loss is not finite, or a picture went away meanwhile.
    """
    require_fresh(run.output, resume=run.resume)
    named = _read(config)
    run.process.require_shares(config.train.batch_size, named.train)
    image = fetch_image(config.model.image)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        survey = survey_pictures(named.data.uris, image, run, door, encode=config.model.frozen)
        rows, notes = _split(config, named, survey)
        run.process.require_shares(config.train.batch_size, len(rows["train"]))
        train, valid = (
            Inputs(named.data.rows(one), _source(one, survey, image, door)) for one in (rows["train"], rows["valid"])
        )
        arguments = ClassifierArguments(backbone=image.card.architecture, labels=named.data.classes)

        def make() -> ClassifierNetwork:
            torch.manual_seed(config.train.seed)
            return ClassifierNetwork(arguments, image.network).to(run.process.device)

        network = make()
        learner = ClassifierLearner(network, config, image.preprocessing, train=train, valid=valid, process=run.process)
        fingerprint = {"train": train.data.fingerprint(), "valid": valid.data.fingerprint()}
        # How it is calibrated changes no weight, so a resumed run may ask for something else.
        settings = config.model_dump(mode="json", exclude={"train": {"cross_fit"}})
        identity = {**settings, "data content": fingerprint}
        result = fit(learner, config.train, run, identity=identity, patience=config.train.patience)
        logits = learner.validation_logits().cpu().double().numpy()
        asked, answers = logits, valid.data.labels
        if config.model.frozen and config.train.cross_fit:
            contents = survey.contents[rows["train"]]
            folds = fold_by_product(train.data, contents, config.train.cross_fit, config.train.seed)
            asked, answers = (
                held_out_logits(
                    make, config, image.preprocessing, run, folds=folds, train=train, valid=valid, identity=identity
                ),
                train.data.labels,
            )
    if not run.process.is_main:
        return None
    shutil.rmtree(run.output / FOLDER, ignore_errors=True)
    temperature, errors = _calibrated(asked, answers)
    network.arguments = arguments.model_copy(update={"temperature": temperature})
    found = measure_classes(valid.data.labels, softmax(logits / temperature, axis=1), resamples=0)
    metrics = {
        **{name: measured.value for name, measured in found.metrics.items()},
        "constant_answer_accuracy": found.constant_accuracy.value,
        "temperature": temperature,
        **errors,
    }
    told = f"{config.data.pictures.name}, {len(train.data)} pictures, content sha256 {fingerprint['train']}"
    return ClassifierReport(
        folder=run.model_folder,
        card=run.save(
            partial(_write, config, network, image, training_data=told, metrics=metrics),
            unreadable={named.data.uris[place]: reason for place, reason in survey.reasons.items()},
        ),
        best_epoch=result.best_epoch,
        metrics=metrics,
        pictures={"train": len(train.data), "valid": len(valid.data)},
        classes=train.data.by_class(),
        unreadable=len(survey.reasons),
        seconds_per_epoch=result.seconds_per_epoch,
        notes=notes,
    )


def _read(config: ClassifierConfig) -> _Labelled:
    """Raises UserError: the data cannot be used."""
    source = config.data
    data = read_labelled(source.pictures, images=source.images, columns=source.columns)
    if len(data.classes) < 2:
        only = data.classes[0]
        raise UserError(f"{source.pictures} has the class '{only}' alone: a classifier tells two or more apart.")
    if source.valid is None:
        return _Labelled(data, len(data))
    valid = read_labelled(source.valid, images=source.images, columns=source.columns, classes=data.classes)
    return _Labelled(data.followed_by(valid), len(data))


def _split(
    config: ClassifierConfig, named: _Labelled, survey: PictureSurvey
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Rows to train on and to validate on, and what is to be said of it.

    Raises:
        UserError: a side is empty, or what is validated on would be trained on.
    """
    data, contents, notes = named.data, survey.contents, []
    kept = np.flatnonzero(survey.readable)
    doubtful = contradictory(data.rows(kept), contents[kept])
    if doubtful.any():
        first = data.names[kept[doubtful][0]]
        notes.append(f"{doubtful.sum():,} pictures were left out: the same bytes are of two classes ({first}).")
        if doubtful.all():
            raise UserError(
                f"{config.data.pictures}: the bytes of each picture are of two classes ({first}): keep one of them."
            )
    kept = kept[~doubtful]
    if named.train == len(data):
        own, valid = split_by_product(data.rows(kept), contents[kept], config.data.valid_fraction, config.train.seed)
        rows = {"train": kept[own], "valid": kept[valid]}
    else:
        rows = {"train": kept[kept < named.train], "valid": kept[kept >= named.train]}
        behind = np.flatnonzero(kept >= named.train)
        if shared := shared_with(data.rows(kept), contents[kept], behind):
            raise UserError(
                f"{shared} is in training, and in data.valid by its bytes or its product: what is measured would be "
                "what was learnt by heart. Remove it from one of them."
            )
    counts = {side: data.rows(chosen).by_class() for side, chosen in rows.items()}
    learnt = [name for name, count in counts["train"].items() if count]
    if len(learnt) < 2 or not len(rows["valid"]):
        raise UserError(f"{config.data.pictures}: what is readable leaves too little to learn from or to validate on.")
    for side, what in (("train", "learn from"), ("valid", "validate on")):
        missing = [name for name, count in counts[side].items() if not count]
        if missing:
            notes.append(f"There was no picture to {what} of {', '.join(missing[:10])}.")
    return rows, tuple(notes)


def _source(
    rows: NDArray[np.int64], survey: PictureSurvey, image: PretrainedImage, door: PictureDoor
) -> Features | PixelReader:
    if survey.features is None:
        return PixelReader(door, image.preprocessing)
    return Features(survey.features.vectors, survey.features.rows[rows])


def _calibrated(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, dict[str, float]]:
    """The temperature of (n, classes) logits, and their calibration error before and after."""
    temperature, errors = fit_softmax_temperature(logits, labels), {}
    for name, divisor in (("calibration_error_before", 1.0), ("calibration_error", temperature)):
        probabilities = softmax(logits / divisor, axis=1)
        errors[name] = reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels).ece
    return temperature, errors


def _write(
    config: ClassifierConfig,
    network: ClassifierNetwork,
    image: PretrainedImage,
    folder: Path,
    *,
    training_data: str,
    metrics: dict[str, float],
) -> ModelCard:
    return save_classifier(
        folder,
        network.cpu(),
        image.preprocessing,
        name=config.model.name,
        source=f"train classifier: {image.card.source}",
        licence=f"image encoder {image.card.licence}",
        training_data=training_data,
        metrics={name: round(value, 6) for name, value in metrics.items()},
    )
