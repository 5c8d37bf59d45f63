"""Training a matcher: pairs, encoders, the loop, and at the end a calibrated model version folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from shopvision.encoders.devices import best_precision
from shopvision.errors import UserError
from shopvision.evaluation.calibration import apply
from shopvision.evaluation.thresholds import Evidence, choose_thresholds
from shopvision.images import PictureDoor
from shopvision.matching.families._parts import Weights
from shopvision.matching.families.card import save_matcher
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.contrastive import FOLDER as CONTRASTIVE_FOLDER
from shopvision.matching.fitting.contrastive import contrast
from shopvision.matching.fitting.cross_fit import FOLDER, plan_folds, with_cross_fitted
from shopvision.matching.fitting.distillation import ask_teacher, teacher_version
from shopvision.matching.fitting.evidence_file import evidence_file
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.preparation import PicturePreparation
from shopvision.matching.fitting.pretraining import FOLDER as PRETRAINING_FOLDER
from shopvision.matching.fitting.pretraining import pretrain
from shopvision.matching.fitting.pretraining_items import pretraining_items
from shopvision.matching.fitting.seeds import FOLDER as SEEDS_FOLDER
from shopvision.matching.fitting.seeds import teach_from_seeds, with_seed
from shopvision.matching.fitting.stages import forget_checkpoints
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.distributed import Process
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class MatcherReport(TrainingReport):
    """What the training of a matcher gave; its card has calibrated thresholds.

    Attributes:
        soup: epochs whose average was kept instead of the best one; empty without a soup.
        seeds: (seeds,) what each reached by the metric that chose among them.
        pairs: per split, how many were trained and validated on.
    """

    soup: tuple[int, ...]
    seeds: tuple[float, ...]
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
    fingerprint = {name: splits[name].fingerprint() for name in ("train", "valid")}
    # What is asked of verdicts changes no weight, so a resumed run may ask for something else.
    identity = {**config.model_dump(mode="json", exclude={"thresholds"}), "data content": fingerprint}
    if config.distillation is not None:
        identity["teacher"] = teacher_version(config.distillation)
    config = _with_settled_precision(config, process)
    labels = splits["valid"].labels
    notes: list[str] = []
    with PictureDoor(get_settings().with_image_roots(config.picture_folders)) as door:
        preparation = PicturePreparation(beginning, config.model, run, door)
        groups = {name: splits[name].used_items() for name in ("train", "valid")}
        items = pretraining_items(config, splits)
        pictures = preparation.of_groups({**groups, "pretraining": items} if items else groups)
        weights: Weights | None = None
        if items:
            beginning, told = pretrain(
                beginning, config, run, items=items, pictures=pictures["pretraining"], identity=identity
            )
            notes.append(told)
            weights = beginning.start.weights
        # Cross-fitted models begin from here: the next stage has seen the labels of their parts.
        unlabelled = weights
        if config.contrastive is not None:
            beginning, told = contrast(beginning, config, run, splits=splits, identity=identity)
            notes.append(told)
            weights = beginning.start.weights
        learnt = splits
        if config.distillation is not None:
            learnt = {**splits, "train": ask_teacher(config.distillation, splits, process, door)}
            notes.append(f"{config.distillation.teacher} was asked about {len(learnt['train']):,} pairs.")
        data: dict[str, Any] = {"splits": learnt, "pictures": pictures, "identity": identity}
        best = teach_from_seeds(beginning, config, run, weights=weights, **data)
        beginning, taught = best.beginning, best.taught
        evidence = Evidence.of_validation(apply(taught.calibration, taught.validation_logits), labels)
        try:
            recipe = with_seed(config, best.seed)
            folds = []
            if config.distillation is None:  # a teacher has seen the labels of every part
                folds = plan_folds(config.thresholds, splits["train"], splits["valid"], best.seed)
            evidence = with_cross_fitted(evidence, folds, recipe, run, weights=unlabelled, **data)
        except UserError as error:  # the model itself is taught, and is not lost for this
            notes.append(f"Cross-fitting was left out: {error}")
    if not process.is_main:
        return None
    chosen = choose_thresholds(evidence, config.thresholds.promise)
    source = config.data.pairs.name if config.data.pairs else "reviewed pairs of the catalogue"
    origins = beginning.start.origins
    card = run.save(
        lambda folder: save_matcher(
            folder,
            beginning.model,
            name=config.model.name,
            source=f"train matcher: {' + '.join(origin.source for origin in origins)}",
            calibration=taught.calibration,
            thresholds=chosen.thresholds,
            promises=chosen.shown,
            more_files=[evidence_file(evidence)],
            licence=", ".join(f"{origin.name} encoder {origin.licence}" for origin in origins),
            training_data=f"{source}, {len(splits['train']):,} pairs, content sha256 {fingerprint['train']}",
            metrics={name: round(value, 6) for name, value in taught.metrics.items()},
        ),
        preparation.unreadable,
    )
    for folder in (FOLDER, SEEDS_FOLDER):
        shutil.rmtree(run.output / folder, ignore_errors=True)
    for stage in (PRETRAINING_FOLDER, CONTRASTIVE_FOLDER):
        forget_checkpoints(run, stage)
    return MatcherReport(
        folder=run.model_folder,
        card=card,
        best_epoch=taught.result.best_epoch,
        soup=taught.soup,
        seeds=best.values,
        metrics=taught.metrics,
        pairs={name: len(splits[name]) for name in ("train", "valid")},
        notes=(*notes, *chosen.shown.shortfalls(), *best.notes(len(splits["train"]))),
        unreadable=len(preparation.unreadable),
        seconds_per_epoch=taught.result.seconds_per_epoch,
    )


def _with_settled_precision(config: MatcherConfig, process: Process) -> MatcherConfig:
    if config.train.precision != "auto":
        return config
    fastest = {"precision": str(best_precision(process.device)).removeprefix("torch.")}
    sections = {"train": config.train, "pretraining": config.pretraining, "contrastive": config.contrastive}
    settled = {name: section.model_copy(update=fastest) for name, section in sections.items() if section is not None}
    return config.model_copy(update=settled)
