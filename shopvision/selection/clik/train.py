"""Training a ranker: data, encoders, the loop, and at the end a model version folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.selection.clik.card import save_clik
from shopvision.selection.clik.config import ClikConfig, DataConfig
from shopvision.selection.clik.data import RankingData, from_catalogue, read_table
from shopvision.selection.clik.learner import ClikLearner
from shopvision.selection.clik.preparation import Encoders, OnStage, Preparation, fetch_encoders
from shopvision.selection.clik.refine import refine
from shopvision.selection.clik.sampling import RankingSampler
from shopvision.settings import Settings, get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.distributed import Process
from shopvision.training.loop import Progress, fit
from shopvision.training.results import MODEL_FOLDER, TrainingReport, replacing_folder, write_unreadable


@dataclass(frozen=True, kw_only=True)
class ClikReport(TrainingReport):
    """What the training of a ranker gave.

    Attributes:
        exhibitions: per split, how many were trained and validated on.
    """

    exhibitions: dict[str, int]


def train_clik(
    config: ClikConfig,
    output: Path,
    *,
    process: Process,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: OnStage = lambda *_: None,
) -> ClikReport | None:
    """Train, and write the best epoch's model version to ``output/model``.

    Args:
        config: what and how.
        output: folder of the run.
        process: this process; the model lies on its device.
        resume: continue an interrupted run in ``output``.
        on_progress: called after every step.
        on_stage: called while pictures and texts are looked at.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: the data, the configuration or the encoders cannot be used; nothing was trained.
        TransientError: a source of pictures is away.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    require_fresh(output, resume=resume)
    splits = read_splits(config)
    sampler = _sampler(config, splits["train"], process)
    encoders = fetch_encoders(config, sampler.matching_batch)
    encoders.clik.to(process.device)
    with ExitStack() as stack:
        settings = allowing_pictures(get_settings(), config.data)
        door = stack.enter_context(PictureDoor(settings))
        preparation = Preparation(
            config, encoders, cache=settings.cache_dir, door=door, process=process, on_stage=on_stage
        )
        readable, failures, pictures = preparation.pictures(splits)
        if not readable.all():
            splits = {name: _without(data, ~readable) for name, data in splits.items()}
            sampler = _sampler(config, splits["train"], process)
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
            preprocessing=encoders.preprocessing,
            process=process,
        )
        fingerprint = {name: data.fingerprint() for name, data in splits.items()}
        result = fit(
            learner,
            config.train,
            output,
            process=process,
            identity={**config.model_dump(mode="json"), "data content": fingerprint},
            resume=resume,
            on_progress=on_progress,
        )
    if not process.is_main:
        return None
    write_unreadable(output, failures)
    exhibitions = {name: len(data.exhibitions) for name, data in splits.items()}
    table = config.data.table
    card = _save(
        output / MODEL_FOLDER,
        config,
        encoders,
        training_data=f"{table.name if table else 'catalogue'}, {exhibitions['train']} exhibitions, content sha256 "
        f"{fingerprint['train']}",
        metrics=result.metrics,
    )
    return ClikReport(
        folder=output / MODEL_FOLDER,
        card=card,
        best_epoch=result.best_epoch,
        metrics=result.metrics,
        exhibitions=exhibitions,
        unreadable=len(failures),
        seconds_per_epoch=result.seconds_per_epoch,
    )


def read_splits(config: ClikConfig) -> dict[str, RankingData]:
    """The refined splits ``train``, ``valid`` and ``test`` of the data that the configuration names.

    Raises:
        UserError: the data cannot be used.
    """
    source = config.data
    if source.table is not None and source.label is not None:
        data = read_table(source.table, label=source.label, images=source.images, columns=source.columns)
    else:
        with connect() as connection:
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
        ranking_sampling=train.ranking_sampling,
        same_topic_per_step=train.same_topic_per_step,
        world=process.world,
        seed=train.seed,
    )


def allowing_pictures(settings: Settings, source: DataConfig) -> Settings:
    """Let this run read the folder of the table's pictures: its user named it."""
    if source.table is None or (source.images and "://" in source.images):
        return settings
    folder = Path(source.images) if source.images else source.table.parent
    return settings.model_copy(update={"image_roots": (*settings.image_roots, folder.resolve())})


def _without(data: RankingData, dropped: NDArray[np.bool_]) -> RankingData:
    """The data without these products, and without exhibitions that had no others."""
    kept = [exhibition.keep(~dropped[exhibition.products]) for exhibition in data.exhibitions]
    return data.with_exhibitions(exhibition for exhibition in kept if len(exhibition.products))


def _save(
    folder: Path, config: ClikConfig, encoders: Encoders, *, training_data: str, metrics: dict[str, float]
) -> ModelCard:
    """Write the model version; the folder is complete or as it was."""
    with replacing_folder(folder) as new:
        return save_clik(
            new,
            encoders.clik,
            encoders.arguments,
            encoders.text.tokenizer,
            encoders.preprocessing,
            name=config.model.name,
            source=f"train {config.train.method}: {encoders.text.source} + {encoders.image.source}",
            licence=f"text encoder {encoders.text.licence}, image encoder {encoders.image.licence}",
            training_data=training_data,
            metrics={name: round(value, 6) for name, value in metrics.items()},
        )
