"""Training a ranker: data, encoders, the loop, and at the end a model version folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shopvision.database import snapshot
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.selection.clik.card import save_clik
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.data import RankingData, from_catalogue, read_table
from shopvision.selection.clik.learner import ClikLearner
from shopvision.selection.clik.preparation import Encoders, Preparation, fetch_encoders
from shopvision.selection.clik.refine import refine
from shopvision.selection.clik.sampling import RankingSampler
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.distributed import Process
from shopvision.training.loop import fit
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class ClikReport(TrainingReport):
    """What the training of a ranker gave.

    Attributes:
        exhibitions: per split, how many were trained and validated on.
    """

    exhibitions: dict[str, int]


def train_clik(config: ClikConfig, run: TrainingRun) -> ClikReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: the data, the configuration or the encoders cannot be used; nothing was trained.
        TransientError: a source of pictures is away.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    require_fresh(run.output, resume=run.resume)
    splits = read_splits(config)
    sampler = _sampler(config, splits["train"], run.process)
    encoders = fetch_encoders(config, sampler.matching_batch)
    encoders.clik.to(run.process.device)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        preparation = Preparation(config, encoders, run, door)
        readable, failures, pictures = preparation.pictures(splits)
        if not readable.all():
            splits = {name: _without(data, ~readable) for name, data in splits.items()}
            sampler = _sampler(config, splits["train"], run.process)
            if sampler.matching_batch != encoders.arguments.bank_size:
                raise UserError(
                    f"Unreadable pictures leave {len(splits['train'].exhibitions)} exhibitions, too few for a matching "
                    f"batch of {encoders.arguments.bank_size}: repair them, or lower train.matching_batch."
                )
        train, valid = preparation.inputs(splits, pictures)
        learner = ClikLearner(
            encoders.clik,
            config,
            sampler,
            train=train,
            valid=valid,
            preprocessing=encoders.image.preprocessing,
            process=run.process,
        )
        fingerprint = {name: data.fingerprint() for name, data in splits.items()}
        identity = {**config.model_dump(mode="json"), "data content": fingerprint}
        result = fit(learner, config.train, run, identity=identity)
    if not run.process.is_main:
        return None
    exhibitions = {name: len(data.exhibitions) for name, data in splits.items()}
    table = config.data.table
    data = f"{table.name if table else 'catalogue'}, {exhibitions['train']} exhibitions"
    training_data = f"{data}, content sha256 {fingerprint['train']}"
    write = partial(_write, config, encoders, training_data, result.metrics)
    return ClikReport(**run.finish(result, write, failures), exhibitions=exhibitions)


def read_splits(config: ClikConfig) -> dict[str, RankingData]:
    """The refined splits ``train``, ``valid`` and ``test`` of the data that the configuration names.

    Raises:
        UserError: the data cannot be used.
    """
    source = config.data
    if source.table is not None and source.label is not None:
        data = read_table(source.table, label=source.label, images=source.images, columns=source.columns)
    else:
        with snapshot() as connection:
            data = from_catalogue(connection, source.label)
    splits, _ = refine(data, config.refine)
    return splits


def _sampler(config: ClikConfig, data: RankingData, process: Process) -> RankingSampler:
    train = config.train
    return RankingSampler(
        data,
        matching_batch=train.matching_batch,
        groups=train.groups,
        group_size=train.group_size,
        text_augmentation=train.text_augmentation,
        matching_sampling=train.matching_sampling,
        ranking_sampling=train.ranking_sampling,
        same_topic_per_step=train.same_topic_per_step,
        world=process.world,
        seed=train.seed,
    )


def _without(data: RankingData, dropped: NDArray[np.bool_]) -> RankingData:
    """The data without these products, and without exhibitions that had no others."""
    kept = [exhibition.keep(~dropped[exhibition.products]) for exhibition in data.exhibitions]
    return data.with_exhibitions(exhibition for exhibition in kept if len(exhibition.products))


def _write(
    config: ClikConfig, encoders: Encoders, training_data: str, metrics: dict[str, float], folder: Path
) -> ModelCard:
    return save_clik(
        folder,
        encoders.clik,
        encoders.arguments,
        encoders.text.tokenizer,
        encoders.image.preprocessing,
        name=config.model.name,
        source=f"train {config.train.method}: {encoders.text.source} + {encoders.image.card.source}",
        licence=f"text encoder {encoders.text.licence}, image encoder {encoders.image.card.licence}",
        training_data=training_data,
        metrics={name: round(value, 6) for name, value in metrics.items()},
    )
