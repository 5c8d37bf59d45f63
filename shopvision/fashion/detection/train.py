"""Training a detector: photos with boxes, what it starts from, the loop, and at the end a model version folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shopvision.errors import UserError
from shopvision.fashion.detection.card import save_detector
from shopvision.fashion.detection.coco import DetectionData, read_boxes
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.learner import DetectorLearner
from shopvision.fashion.detection.network import DetectionNetwork
from shopvision.fashion.detection.pyramid_network import PyramidArguments, PyramidNetwork
from shopvision.fashion.detection.samples import SampleReader
from shopvision.fashion.detection.sources import fetch_base
from shopvision.fashion.detection.splits import require_apart, split_by_photo, with_parts
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.loop import fit
from shopvision.training.pretrained import fetch_image
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class DetectorReport(TrainingReport):
    """What the training of a detector gave.

    Attributes:
        pictures: of training, with parts of photos, and of validation.
        boxes: of training, by class.
        regions: precision, recall and F1 of validation regions above the card's score; empty where none is right.
    """

    pictures: dict[str, int]
    boxes: dict[str, int]
    regions: dict[str, float]


@dataclass(frozen=True)
class _Start:
    """What training starts from."""

    network: DetectionNetwork
    source: str
    licence: str


def train_detector(config: DetectorConfig, run: TrainingRun) -> DetectorReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Returns:
        What it gave, in the main process; None in the others.

    Raises:
        UserError: the data, the configuration or the folder cannot be used; nothing is written then.
        JobError: the loss is not finite, or a picture went away.
        TransientError: a source of pictures is away for the moment.
    """
    require_fresh(run.output, resume=run.resume)
    train, valid = read_splits(config)
    run.process.require_shares(config.train.batch_size, len(train.pictures))
    start = _start(config, train.classes)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        reader = SampleReader(door, start.network.target)
        train, valid, failures = _readable(train, valid, reader, run)
        _require_boxes(config, train, valid)
        run.process.require_shares(config.train.batch_size, len(train.pictures))
        if config.data.parts:
            train = with_parts(train, config.train.seed)
        network = start.network.to(run.process.device)
        learner = DetectorLearner(network, config, reader, train=train, valid=valid, process=run.process)
        identity = {
            **config.model_dump(mode="json"),
            "data content": {"train": train.fingerprint(), "valid": valid.fingerprint()},
        }
        result = fit(learner, config.train, run, identity=identity)
        if not run.process.is_main:
            return None
        chosen = learner.choose_score()
    told = {
        "training_data": (
            f"{config.data.boxes.name}, {len(train.pictures)} pictures, content sha256 {train.fingerprint()}"
        ),
        "metrics": {name: round(value, 6) for name, value in result.metrics.items()},
        "thresholds": {} if chosen is None else {"score": chosen[0]},
    }
    return DetectorReport(
        **run.finish(result, partial(_write, config, start, told), failures),
        pictures={"train": len(train.pictures), "valid": len(valid.pictures)},
        boxes=train.boxes_by_class(),
        regions={} if chosen is None else chosen[1].as_dict(),
    )


def read_splits(config: DetectorConfig) -> tuple[DetectionData, DetectionData]:
    """The training and validation pictures that the configuration names, no photo in both.

    Raises:
        UserError: the data cannot be used.
    """
    source = config.data
    data = read_boxes(source.boxes, images=source.images)
    if source.valid is None:
        train, valid = split_by_photo(data, source.valid_fraction, config.train.seed)
    else:
        train, valid = data, read_boxes(source.valid, images=source.images, classes=data.classes)
        require_apart(train, valid)
    _require_boxes(config, train, valid)
    return train, valid


def _has_boxes(data: DetectionData) -> bool:
    return any(len(picture.boxes) for picture in data.pictures)


def _require_boxes(config: DetectorConfig, train: DetectionData, valid: DetectionData) -> None:
    """Raises UserError: a side has no box. Without one in validation no epoch would be better than the first."""
    source = config.data
    if not _has_boxes(train):
        raise UserError(f"{source.boxes}: no picture to learn from has a box, so that there is nothing to learn.")
    if not _has_boxes(valid):
        raise UserError(
            f"{source.valid or source.boxes}: none of {len(valid.pictures)} pictures to validate on has a box, so that "
            "no epoch can be told from another: name others by data.valid, or raise data.valid_fraction."
        )


def _start(config: DetectorConfig, classes: tuple[str, ...]) -> _Start:
    """The network before the first step; what is new in it is the same in every process."""
    torch.manual_seed(config.train.seed)
    model = config.model
    if model.base is not None:
        network = fetch_base(model.base, classes)
        return _Start(network, model.base, "unknown")
    image = fetch_image(model.image)
    arguments = PyramidArguments(
        backbone=image.card.architecture,
        labels=classes,
        mean=image.preprocessing.mean,
        std=image.preprocessing.std,
        longest_side=model.longest_side,
        channels=model.channels,
        head_convs=model.head_convs,
    )
    pyramid = PyramidNetwork(arguments, image.network)
    if model.frozen_stride:
        pyramid.freeze(model.frozen_stride)
    return _Start(pyramid, image.card.source, f"backbone {image.card.licence}")


def _readable(
    train: DetectionData, valid: DetectionData, reader: SampleReader, run: TrainingRun
) -> tuple[DetectionData, DetectionData, dict[str, str]]:
    """Both without pictures that cannot be read; address -> reason of these, in the main process.

    The main process looks at every picture; the others take over what it found.

    Raises:
        UserError: nothing is left of one of them, or a picture has another size than its file says.
    """
    process = run.process
    pictures = (*train.pictures, *valid.pictures)
    reasons = reader.survey(pictures, run.stage("pictures")) if process.is_main else {}
    bad = torch.zeros(len(pictures), device=process.device)
    bad[sorted(reasons)] = 1
    fine = (process.total(bad) == 0).tolist()
    count = len(train.pictures)
    kept = [
        data.with_pictures(picture for picture, good in zip(data.pictures, marks, strict=True) if good)
        for data, marks in ((train, fine[:count]), (valid, fine[count:]))
    ]
    if not all(data.pictures for data in kept):
        reason = next(iter(reasons.values()), "see the main process")
        raise UserError(f"Of training or validation not one picture can be read ({reason}): check the picture folder.")
    return kept[0], kept[1], {pictures[place].uri: reason for place, reason in reasons.items()}


def _write(config: DetectorConfig, start: _Start, told: dict[str, Any], folder: Path) -> ModelCard:
    return save_detector(
        folder,
        start.network.cpu(),
        name=config.model.name,
        source=f"train detector: {start.source}",
        licence=start.licence,
        **told,
    )
