"""How well found boxes fit labelled ones: the metrics of COCO, through torchmetrics and COCO's own evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.evaluation.bootstrap import percentiles

if TYPE_CHECKING:
    from torch import Tensor

    from shopvision.fashion.detection.regions import Boxes

METRICS = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
WITH_INTERVAL = ("map", "map_50")


@dataclass(frozen=True)
class DetectionMetrics:
    """Metrics over all pictures.

    Attributes:
        values: see ``METRICS``; one that nothing was labelled for, such as ``map_small`` without small boxes, is left
            out. Small is below 32 x 32 pixels, large from 96 x 96 on.
        classes: class -> its ``map``, ``map_50`` and ``mar_100``; a class without a labelled box is left out.
    """

    values: dict[str, float]
    classes: dict[str, dict[str, float]]


def measure_detections(found: Sequence[Boxes], labelled: Sequence[Boxes], classes: Sequence[str]) -> DetectionMetrics:
    """All metrics of pictures, boxes in pixels.

    Args:
        found: of each picture, with scores; everything, also what has a low score.
        labelled: of each picture; scores are not looked at.
        classes: names by number.
    """
    whole = _computed(found, labelled)
    halves = _computed(found, labelled, iou_thresholds=[0.5])
    by_class = zip(
        whole["classes"].reshape(-1).tolist(),
        whole["map_per_class"].reshape(-1).tolist(),
        halves["map_per_class"].reshape(-1).tolist(),
        whole["mar_100_per_class"].reshape(-1).tolist(),
        strict=True,
    )
    there = {label for one in labelled for label in one.labels.tolist()}
    return DetectionMetrics(
        _known(whole),
        {
            classes[number]: {"map": average, "map_50": at_half, "mar_100": recall}
            for number, average, at_half, recall in by_class
            if number in there
        },
    )


def overall(found: Sequence[Boxes], labelled: Sequence[Boxes]) -> dict[str, float]:
    """``DetectionMetrics.values`` alone, which are had faster."""
    return _known(_computed(found, labelled, class_metrics=False))


def intervals(
    found: Sequence[Boxes], labelled: Sequence[Boxes], *, resamples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals (95 %) of the metrics in ``WITH_INTERVAL``: pictures are drawn again with replacement.

    A draw without any labelled box says nothing and is not counted. Empty for fewer than two pictures with boxes, of
    which the spread is unknown.
    """
    if not resamples or sum(len(one.labels) > 0 for one in labelled) < 2:
        return {}
    generator = np.random.default_rng(seed)
    draws = np.full((resamples, len(WITH_INTERVAL)), np.nan)
    for draw in draws:
        rows = generator.integers(len(found), size=len(found))
        values = _known(_computed([found[row] for row in rows], [labelled[row] for row in rows], class_metrics=False))
        draw[:] = [values.get(name, np.nan) for name in WITH_INTERVAL]
    if np.isnan(draws).all():
        return {}
    low, high = percentiles(draws)
    return dict(zip(WITH_INTERVAL, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _known(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(values[name]) for name in METRICS if float(values[name]) >= 0}


def _computed(
    found: Sequence[Boxes], labelled: Sequence[Boxes], *, class_metrics: bool = True, **options: Any
) -> dict[str, Tensor]:
    from torchmetrics.detection import MeanAveragePrecision

    # Of several processes one measures everything; by default the metric would wait for what the others have.
    metric = MeanAveragePrecision(class_metrics=class_metrics, sync_on_compute=False, **options)
    metric.warn_on_many_detections = False
    metric.update(
        [{"boxes": one.boxes, "labels": one.labels, "scores": one.scores} for one in found],
        [{"boxes": one.boxes, "labels": one.labels} for one in labelled],
    )
    values: dict[str, Tensor] = metric.compute()
    return values
