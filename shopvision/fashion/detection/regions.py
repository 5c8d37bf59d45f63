"""From a detector's raw boxes to the regions that are worth a crop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, nms, remove_small_boxes

from shopvision.images import Box


@dataclass(frozen=True, slots=True)
class Region:
    """A garment in a picture.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright picture at full scale, within the picture.
        label: its class, as the model names it.
        score: between 0 and 1.
    """

    box: Box
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class RegionRules:
    """Which boxes become regions.

    Attributes:
        score: boxes must be above it.
        same_class_iou: of two boxes of one class that overlap by more, the better one stays.
        any_class_iou: likewise of two boxes of any classes. It is higher, because a coat over a top, or a dress, covers
            much of the other, and both are there; nearly the same box twice is one garment under two names.
        smallest_side: pixels of the picture at full scale. Smaller crops have unreliable neighbours.
    """

    score: float = 0.3
    same_class_iou: float = 0.7
    any_class_iou: float = 0.9
    smallest_side: float = 16.0


@dataclass(frozen=True, slots=True)
class Boxes:
    """n boxes of one picture.

    Attributes:
        boxes: (n, 4) float32: left, top, right, bottom.
        labels: (n,) int64.
        scores: (n,) float32.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def none(cls) -> Boxes:
        """No boxes."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def to(self, device: torch.device | str) -> Boxes:
        """The same on another device."""
        return Boxes(self.boxes.to(device), self.labels.to(device), self.scores.to(device))

    def __getitem__(self, rows: Tensor) -> Boxes:
        return Boxes(self.boxes[rows], self.labels[rows], self.scores[rows])


def choose_regions(found: Boxes, size: tuple[int, int], rules: RegionRules) -> Boxes:
    """The boxes worth a crop, the best first.

    Args:
        found: in pixels of a picture.
        size: (width, height) of the picture.
        rules: what they must fulfil.
    """
    found = large_enough(clamped(confident(found, rules.score), size), rules.smallest_side)
    return without_doubles(found, rules.same_class_iou, rules.any_class_iou)


def confident(found: Boxes, score: float) -> Boxes:
    """Boxes with more than this score."""
    return found[found.scores > score]


def clamped(found: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes cut at the edges of a picture of ``size`` (width, height); one that lies outside becomes empty."""
    return Boxes(clip_boxes_to_image(found.boxes, size[::-1]), found.labels, found.scores)


def large_enough(found: Boxes, smallest_side: float) -> Boxes:
    """Boxes of which both sides have so many pixels."""
    return found[remove_small_boxes(found.boxes, smallest_side)]


def without_doubles(found: Boxes, same_class_iou: float, any_class_iou: float) -> Boxes:
    """The best of boxes that overlap: first within each class, then, with a higher limit, of all. The best first."""
    found = found[batched_nms(found.boxes, found.scores, found.labels, same_class_iou)]
    return found[nms(found.boxes, found.scores, any_class_iou)]
