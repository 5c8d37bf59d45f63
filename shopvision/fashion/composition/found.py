"""What a detector found in one picture, as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from shopvision.images import Box

Lab: TypeAlias = tuple[float, float, float]
"""A colour in CIELAB (D65): lightness 0 to 100, green to red, blue to yellow."""

WHOLE = 0
"""The number of the region that is the whole picture."""


@dataclass(frozen=True, slots=True)
class FoundRegion:
    """A garment in a picture, or the whole picture. Its number is its place: the whole comes first, then the best.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright picture at full scale; single precision.
        label: its class as the detector names it; None is the whole picture.
        score: between 0 and 1; None likewise.
        colour: of the garment, where it has one.
    """

    box: Box
    label: str | None = None
    score: float | None = None
    colour: Lab | None = None


def size_of(found: Sequence[FoundRegion]) -> tuple[int, int]:
    """(width, height) of the picture in which this was found."""
    box = found[WHOLE].box
    return round(box[2]), round(box[3])


def single_box(values: Sequence[float]) -> Box:
    """A box in single precision, as it is stored: equal where it comes from the detector and from the table."""
    left, top, right, bottom = np.array(values, np.float32).tolist()
    return left, top, right, bottom
