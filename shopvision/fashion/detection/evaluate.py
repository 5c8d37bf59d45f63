"""How good a detector is on photos with boxes that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shopvision.errors import ItemError, UserError
from shopvision.evaluation.report import EvaluationReport, Part, without_interval
from shopvision.fashion.detection.coco import DetectionData, LabelledPicture
from shopvision.fashion.detection.metrics import DetectionMetrics, intervals, measure_detections
from shopvision.fashion.detection.predict import Detector, PreparedPicture
from shopvision.fashion.detection.regions import Boxes
from shopvision.images.reader import PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.training.features import OnProgress

# Of the bootstrap; each draw measures everything anew.
RESAMPLES = 200
PICTURES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class DetectionReport:
    """What was measured.

    Attributes:
        model: ``name:tag``.
        metrics: of everything the network gives, before the rules that choose regions.
        intervals: metric -> 95 % bootstrap interval over pictures.
        pictures: how many were looked at.
        boxes: class -> labelled ones on them.
        unreadable: pictures left out because they could not be read.
        not_finite: pictures that the network gave no finite boxes for; they count as without any.
        data_fingerprint: sha256 of the pictures' names and boxes that were measured.
    """

    model: str
    metrics: DetectionMetrics
    intervals: dict[str, tuple[float, float]]
    pictures: int
    boxes: dict[str, int]
    unreadable: int
    not_finite: int
    data_fingerprint: str

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation. What chance would give is next to nothing and is not told."""
        values = without_interval(self.metrics.values, self.pictures)
        for name, (low, high) in self.intervals.items():
            values[name] = replace(values[name], low=low, high=high)
        return EvaluationReport(
            name=self.model,
            data=f"pictures with boxes, content sha256 {self.data_fingerprint}",
            counts={
                "pictures": self.pictures,
                "boxes": sum(self.boxes.values()),
                "unreadable pictures left out": self.unreadable,
                "pictures without finite boxes": self.not_finite,
            },
            metrics=values,
            parts=[
                Part("class", name, without_interval(of, self.pictures)) for name, of in self.metrics.classes.items()
            ],
            facts={"boxes": self.boxes},
        )


def evaluate_detector(
    detector: Detector,
    data: DetectionData,
    door: PictureDoor,
    *,
    model: str,
    resamples: int = RESAMPLES,
    on_progress: OnProgress = lambda *_: None,
) -> DetectionReport:
    """A detector on photos with boxes.

    Args:
        detector: as it serves.
        data: photos that it was not trained on, with the detector's classes in its order.
        door: that the pictures come through.
        model: ``name:tag``.
        resamples: of the bootstrap; 0 leaves intervals out.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: other classes, no boxes, a picture of another size than its file says, or not one picture with a box
            can be read.
        TransientError: a source of pictures is away for the moment.
    """
    if detector.labels != data.classes:
        raise UserError(f"The boxes are of other classes than the detector knows: {', '.join(detector.labels)}.")
    if not any(data.boxes_by_class().values()):
        raise UserError(f"There is no box on {len(data.pictures):,} pictures to measure on: choose another file.")
    found: list[Boxes] = []
    measured: list[LabelledPicture] = []
    not_finite = unreadable = 0
    for pictures, prepared, failed in _prepared(detector, data, door):
        boxes = detector.boxes(prepared)
        not_finite += sum(one is None for one in boxes)
        found += [Boxes.none() if one is None else one for one in boxes]
        measured += pictures
        unreadable += failed
        on_progress(len(found) + unreadable, len(data.pictures))
    seen = data.with_pictures(measured)
    counts = seen.boxes_by_class()
    if not any(counts.values()):
        raise UserError(f"Not one of {len(data.pictures):,} pictures with a box can be read: check the picture folder.")
    labelled = [picture.truth for picture in measured]
    return DetectionReport(
        model=model,
        metrics=measure_detections(found, labelled, data.classes),
        intervals=intervals(found, labelled, resamples=resamples),
        pictures=len(found),
        boxes=counts,
        unreadable=unreadable,
        not_finite=not_finite,
        data_fingerprint=seen.fingerprint(),
    )


def _prepared(
    detector: Detector, data: DetectionData, door: PictureDoor
) -> Iterator[tuple[list[LabelledPicture], list[PreparedPicture], int]]:
    """Some pictures at a time, as the detector reads them, and how many of these could not be read."""
    reader = PictureReader(door, detector.prepare, target=detector.target, ahead=PICTURES_AT_ONCE)
    requests = [
        PictureRequest(key, picture.uri, regions=None if picture.part is None else (picture.part,))
        for key, picture in enumerate(data.pictures)
    ]
    with reader.read(requests, in_order=True) as reading:
        while reading.missing:
            outcomes = reading.take_many(PICTURES_AT_ONCE, 2.0)
            pictures, prepared = [], []
            for outcome in outcomes:
                picture, found = data.pictures[outcome.key], whole(outcome)
                if not isinstance(found, ItemError):
                    picture.require_size(found.size)
                    pictures.append(picture)
                    prepared.append(found)
            yield pictures, prepared, len(outcomes) - len(pictures)
