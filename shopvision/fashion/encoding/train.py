"""``train encoder``: a common encoder, and where that is asked for one for each category beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from shopvision.errors import UserError
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.fashion.encoding.by_category import (
    CategoryResult,
    choose_categories,
    compose_categories,
    compose_command,
    fit_categories,
    require_detector,
)
from shopvision.fashion.encoding.config import DataConfig, EncoderConfig
from shopvision.fashion.encoding.features import ViewSurvey, survey_views
from shopvision.fashion.encoding.fitting import (
    FINAL_RESAMPLES,
    Materials,
    fit_encoder,
    save_fitted,
    trained_on,
    training_data,
)
from shopvision.fashion.encoding.inputs import FeatureInputs, PixelInputs
from shopvision.fashion.encoding.measure import Measures, measure_search
from shopvision.fashion.encoding.pairs import PairData, Shown, pairs_of_file, pairs_of_items
from shopvision.fashion.encoding.searching import Search
from shopvision.fashion.encoding.splits import require_apart, split_pairs
from shopvision.fashion.encoding.start import Start, start_of
from shopvision.fashion.encoding.views import View
from shopvision.images import PictureDoor
from shopvision.settings import get_settings
from shopvision.training.checkpointing import require_fresh
from shopvision.training.results import TrainingReport
from shopvision.training.run import TrainingRun

# Further products that validation and test search among, beside their own; each is encoded after every epoch.
SEARCHED_AMONG = 2_000


@dataclass(frozen=True, kw_only=True)
class EncoderReport(TrainingReport):
    """What the training of an encoder gave.

    Attributes:
        pairs: per split, how many were trained and measured on.
        gallery: pictures that validation searches among.
        valid: metrics of validation, over which the epoch was chosen.
        frozen: the same of the image encoder before training.
        test: metrics of the test pairs; None where none were kept.
        categories: encoders of categories, and the common one on the same pairs.
        composed: folder of the version that routes by category; None where none was made.
    """

    pairs: dict[str, int]
    gallery: int
    valid: Measures
    frozen: Measures
    test: Measures | None
    categories: tuple[CategoryResult, ...] = ()
    composed: Path | None = None

    def report(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        facts = {"encoders": {result.name: str(result.folder) for result in self.categories}}
        told = self.summary("pairs", self.pairs, **(facts if self.categories else {}))
        parts = [Part("before training", "", self.frozen)]
        if self.test is not None:
            parts.append(Part("test", "", self.test))
        for result in self.categories:
            parts += result.parts()
        counts = {**told.counts, "pictures searched among": self.gallery}
        return replace(told, metrics=self.valid, parts=parts, counts=counts)


def train_encoder(config: EncoderConfig, run: TrainingRun, *, detector: Path | None = None) -> EncoderReport | None:
    """Train, and write the best epoch's model version to ``model`` in the folder of the run.

    Args:
        config: what to train on, from and how.
        run: this run.
        detector: folder of a detector's version, to compose encoders of categories with; without one they are left
            beside each other.

    Returns:
        What it gave, in the main process; None in the others.

    Raises:
        UserError: the data, the configuration, the detector or the folder cannot be used; nothing is written then.
        JobError: the loss is not finite, or a picture went away.
        TransientError: a source of pictures is away for the moment.
    """
    require_fresh(run.output, resume=run.resume)
    splits, world = read_splits(config), run.process.world
    run.process.require_shares(config.train.batch_size, len(trained_on(config, splits["train"])))
    names, _ = choose_categories(config, splits["train"], splits["valid"], world)
    if detector is not None:
        require_detector(detector, names, config.data.classes or {})
    start = start_of(config.model, config.train.seed)
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        views = tuple(dict.fromkeys(view for data in splits.values() for view in data.views()))
        survey = survey_views(
            views,
            start.image,
            run,
            door,
            changes=config.train.changes,
            variants=config.train.views if config.model.fine_tune == "none" else None,
        )
        splits = _readable(splits, views, survey)
        materials = _materials(config, start, views, survey, device=run.process.device, door=door)
        fitted = fit_encoder(config, materials, splits["train"], splits["valid"], run)
        test = None
        if "test" in splits:
            search = Search.of(splits["test"], materials.contents)
            test = measure_search(search, fitted.learner.found(search), resamples=FINAL_RESAMPLES)
        names, notes = choose_categories(config, splits["train"], splits["valid"], world)
        categories = fit_categories(config, materials, splits, fitted, run, names=names)
    if not run.process.is_main:
        return None
    told = training_data(config, splits["train"])
    reasons = {views[place].uri: reason for place, reason in survey.reasons.items()}
    told_alike = run.finish(
        fitted.result,
        lambda folder: save_fitted(fitted, start, folder, name=config.model.name, training_data=told),
        reasons,
    )
    composed = None
    if categories and detector is not None:
        composed = compose_categories(config, run, detector, categories)
    elif categories:
        notes = (*notes, compose_command(config, run, categories))
    return EncoderReport(
        **told_alike,
        notes=notes,
        pairs={name: len(data.pairs) for name, data in splits.items()},
        gallery=len(splits["valid"].gallery()),
        valid=fitted.valid,
        frozen=fitted.frozen,
        test=test,
        categories=categories,
        composed=composed,
    )


def read_splits(config: EncoderConfig) -> dict[str, PairData]:
    """Pairs of ``train``, ``valid`` and, where some are kept for it, ``test``, with nothing shared between them.

    Raises:
        UserError: the data cannot be used.
    """
    source, seed = config.data, config.train.seed
    data = _read(source)
    if source.valid is None:
        train, valid, test = split_pairs(data, (source.valid_fraction, source.test_fraction), seed)
    else:
        train, test = split_pairs(data, (source.test_fraction,), seed)
        valid = pairs_of_file(source.valid, source.images)
        require_apart(data, valid)
    others = data.others or tuple(
        {pair.positive: Shown(pair.positive, pair.product, pair.category) for pair in train.measured}.values()
    )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(others))[:SEARCHED_AMONG])
    among = tuple(others[place] for place in drawn)
    splits = {"train": PairData(train.pairs)}
    for name, side in (("valid", valid), ("test", test)):
        if side.measured:
            splits[name] = PairData(side.measured, among)
    return splits


def _read(source: DataConfig) -> PairData:
    if source.pairs is not None:
        return pairs_of_file(source.pairs, source.images)
    return pairs_of_items(source.file, source.images, product=source.product, classes=source.classes)


def _readable(splits: dict[str, PairData], views: Sequence[View], survey: ViewSurvey) -> dict[str, PairData]:
    """The splits without views that cannot be read.

    Raises:
        UserError: nothing is left of one.
    """
    good = {view for view, fine in zip(views, survey.readable, strict=True) if fine}
    kept = {name: data.readable(good) for name, data in splits.items()}
    for name, data in kept.items():
        if not data.pairs:
            reason = next(iter(survey.reasons.values()), "see the main process")
            raise UserError(f"Not one pair for {name} has two readable pictures ({reason}): check the picture folder.")
    return kept


def _materials(
    config: EncoderConfig,
    start: Start,
    views: Sequence[View],
    survey: ViewSurvey,
    *,
    device: torch.device,
    door: PictureDoor,
) -> Materials:
    preprocessing = start.image.preprocessing
    inputs = (
        PixelInputs(views, preprocessing, device, door, config.train.changes)
        if survey.features is None
        else FeatureInputs(views, preprocessing, device, survey.features)
    )
    return Materials(start, inputs, dict(zip(views, survey.contents.tolist(), strict=True)))
