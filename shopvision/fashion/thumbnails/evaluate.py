"""How good a thumbnail classifier is on pictures that it has not seen, and how far its probabilities can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError, UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure
from shopvision.evaluation.class_metrics import ClassMetrics, measure_classes
from shopvision.evaluation.reliability import Reliability, reliability
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.fashion.thumbnails.classifier import ThumbnailClassifier
from shopvision.fashion.thumbnails.data import LabelledPictures
from shopvision.images.preprocessing import fit
from shopvision.images.reader import PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.training.features import OnProgress

# How sure it must be, for the shares of pictures that are then taken and of these that are right.
SURE = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """What was measured.

    Attributes:
        model: ``name:tag``.
        classes: names.
        found: metrics over n pictures.
        probabilities: (n,) of the class that was said.
        right: (n,) whether it was.
        unreadable: pictures left out because they could not be read.
        not_finite: pictures left out because the network cannot place them.
        temperature: of the classifier.
        data_fingerprint: sha256 of the pictures' names and classes.
    """

    model: str
    classes: tuple[str, ...]
    found: ClassMetrics
    probabilities: NDArray[np.float64]
    right: NDArray[np.bool_]
    unreadable: int
    not_finite: int
    temperature: float
    data_fingerprint: str

    @property
    def bins(self) -> Reliability:
        """How far the probability of what was said can be taken at its word."""
        return reliability(self.probabilities, self.right)

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation, beside the constant answer."""
        count, bins = len(self.right), self.bins
        of_class = self.found.confusion.sum(axis=1).tolist()
        constant = self.found.most_frequent
        told = {name: self.found.by_class[number] for number, name in enumerate(self.classes)}
        return EvaluationReport(
            name=self.model,
            data=f"pictures with a class each, content sha256 {self.data_fingerprint}",
            counts={
                "pictures": count,
                "classes": sum(not math.isnan(of["recall"].value) for of in told.values()),
                "unreadable pictures left out": self.unreadable,
                "pictures without finite probabilities left out": self.not_finite,
            },
            metrics={
                **self.found.metrics,
                "calibration_error": Measured(bins.ece, math.nan, math.nan, bins.noise, count),
            },
            parts=[
                Part("baseline", f"always {self.classes[constant]}", {"accuracy": self.found.constant_accuracy}),
                *(Part("class", name, of) for name, of in told.items()),
                *self._sure(),
            ],
            facts={
                "temperature": self.temperature,
                "pictures": dict(zip(self.classes, of_class, strict=True)),
            },
        )

    def _sure(self) -> Iterator[Part]:
        for least in SURE:
            taken = self.probabilities >= least
            values = np.stack([taken.astype(float), np.where(taken, self.right, np.nan)], axis=1)
            share, right = measure(values, np.full_like(values, np.nan))
            yield Part("probability from", f"{least:g}", {"share": share, "accuracy": right})


def evaluate_classifier(
    classifier: ThumbnailClassifier,
    data: LabelledPictures,
    door: PictureDoor,
    *,
    model: str,
    resamples: int = RESAMPLES,
    on_progress: OnProgress = lambda *_: None,
) -> ClassificationReport:
    """A classifier on pictures with a class each.

    Args:
        classifier: as it serves.
        data: pictures that it was not trained on, with its classes in its order.
        door: that the pictures come through.
        model: ``name:tag``.
        resamples: of the bootstrap; 0 leaves intervals out.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: other classes, or not one picture can be read and placed.
        TransientError: a source of pictures is away for the moment.
    """
    if classifier.labels != data.classes:
        raise UserError(f"The pictures are of other classes than the classifier has: {', '.join(classifier.labels)}.")
    scores = np.full((len(data), len(data.classes)), np.nan)
    unreadable = done = 0
    for places, batch, failed in _prepared(classifier, data, door):
        if len(places):
            scores[places] = classifier.probabilities(batch)
        unreadable += failed
        done += len(places) + failed
        on_progress(done, len(data))
    placed = np.isfinite(scores).all(axis=1)
    if not placed.any():
        raise UserError(f"Not one of {len(data):,} pictures can be read and placed: check the picture folder.")
    scores, measured = scores[placed], data.rows(placed)
    return ClassificationReport(
        model=model,
        classes=data.classes,
        found=measure_classes(measured.labels, scores, resamples=resamples),
        probabilities=scores.max(axis=1),
        right=scores.argmax(axis=1) == measured.labels,
        unreadable=unreadable,
        not_finite=len(data) - unreadable - len(measured),
        temperature=classifier.temperature,
        data_fingerprint=measured.fingerprint(),
    )


def _prepared(
    classifier: ThumbnailClassifier, data: LabelledPictures, door: PictureDoor
) -> Iterator[tuple[list[int], NDArray[np.uint8], int]]:
    """Places of some pictures and their pixels (n, H, W, 3), and how many others could not be read."""
    preprocessing, at_once = classifier.preprocessing, classifier.batch_size
    prepare = partial(fit, preprocessing=preprocessing)
    reader: PictureReader[NDArray[np.uint8]] = PictureReader(
        door, prepare, target=preprocessing.resized, ahead=2 * at_once
    )
    with reader.read([PictureRequest(place, uri) for place, uri in enumerate(data.uris)], in_order=True) as reading:
        while reading.missing:
            outcomes = reading.take_many(at_once, 2.0)
            good: dict[int, NDArray[np.uint8]] = {}
            for outcome in outcomes:
                pixels = whole(outcome)
                if not isinstance(pixels, ItemError):
                    good[outcome.key] = pixels
            batch = np.stack(list(good.values())) if good else np.empty(0, np.uint8)
            yield list(good), batch, len(outcomes) - len(good)
