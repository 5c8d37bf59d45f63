"""From which score on a box is worth to be a region: where regions are as complete as they are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision.ops import box_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.fashion.detection.regions import Boxes

# A region is right where it overlaps a labelled box of its class by so much.
LEAST_IOU = 0.5


@dataclass(frozen=True, slots=True)
class RegionFit:
    """How regions above a score fit labelled boxes.

    Attributes:
        precision: share of the regions that are right; 0 where there is none.
        recall: share of the labelled boxes that a region is right about.
        f1: their harmonic mean.
    """

    precision: float
    recall: float
    f1: float

    def as_dict(self) -> dict[str, float]:
        """Rounded, for reports."""
        return {"precision": round(self.precision, 4), "recall": round(self.recall, 4), "f1": round(self.f1, 4)}


def fit_of(found: Sequence[Boxes], labelled: Sequence[Boxes], score: float) -> RegionFit:
    """Of the regions with more than ``score`` on pictures with labelled boxes."""
    right, scores, wanted = _judged(found, labelled)
    above = scores > score
    hits = int(right[above].sum())
    count = int(above.sum())
    return RegionFit(hits / max(1, count), hits / max(1, wanted), 2 * hits / max(1, count + wanted))


def best_score(found: Sequence[Boxes], labelled: Sequence[Boxes]) -> float | None:
    """The score above which regions have the best F1, midway between the two that it parts.

    Args:
        found: of each picture; doubles are gone.
        labelled: of each picture; scores are not looked at.

    Returns:
        None where no region is right: then no score is better than another.
    """
    right, scores, wanted = _judged(found, labelled)
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + wanted)
    below = np.append(scores[1:], 0.0)
    best = int(np.argmax(np.where(below < scores, f1, -1.0)))  # equal scores are not parted
    return float((scores[best] + below[best]) / 2)


def _judged(found: Sequence[Boxes], labelled: Sequence[Boxes]) -> tuple[NDArray[np.bool_], NDArray[np.float64], int]:
    """Whether each of all regions is right, their scores, and how many boxes are labelled."""
    right = [_is_right(one, wanted) for one, wanted in zip(found, labelled, strict=True)]
    scores = [one.scores.double().numpy() for one in found]
    return (
        np.concatenate([*right, []]).astype(bool),
        np.concatenate([*scores, []]),
        sum(len(one.labels) for one in labelled),
    )


def _is_right(found: Boxes, labelled: Boxes) -> NDArray[np.bool_]:
    """(n,) as COCO counts: the best score chooses first among labelled boxes of its class, each of which is one's."""
    right = np.zeros(len(found.labels), bool)
    overlap = box_iou(found.boxes, labelled.boxes)
    overlap[found.labels[:, None] != labelled.labels[None, :]] = 0.0
    if not overlap.numel():
        return right
    for place in torch.argsort(found.scores, descending=True, stable=True).tolist():
        best = int(overlap[place].argmax())
        if float(overlap[place, best]) >= LEAST_IOU:
            right[place] = True
            overlap[:, best] = 0.0
    return right
