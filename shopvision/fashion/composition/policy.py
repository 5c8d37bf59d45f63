"""Which part of a picture is embedded, and how it is cut out."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shopvision.images import Box

# What a detector finds is stored from this score on, whatever the policy, so that another policy needs no new look.
LEAST_SCORE = 0.1
# Of one picture, the best ones. More garments than this is a crowd or a detector that sees things.
MOST_REGIONS = 32


class CropPolicy(BaseModel):
    """What of a catalogue picture gets a vector.

    Attributes:
        crop: ``whole`` embeds the picture as it is, ``main`` the one garment that it is about, ``all`` each garment.
            Without a garment, the whole picture is embedded.
        margin: share of a box's width and height that is added on each side: detectors cut closely.
        smallest_side: pixels of the picture at full scale. A smaller garment gets no vector: its neighbours would be
            unreliable.
        score: a garment counts from this score on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: Literal["whole", "main", "all"] = "main"
    margin: float = Field(0.1, ge=0, le=1, allow_inf_nan=False)
    smallest_side: int = Field(32, ge=1)
    score: float = Field(0.5, ge=LEAST_SCORE, le=1, allow_inf_nan=False)


def crop_box(box: Box, size: tuple[int, int], margin: float) -> Box:
    """What is cut out for a garment: its box with a margin, within the picture, at whole pixels, outwards.

    Args:
        box: in pixels of the upright picture at full scale.
        size: (width, height) of that picture.
        margin: share of the box's width and height that is added on each side.

    Returns:
        Whole numbers, at least one pixel wide and high.
    """
    left, right = _span(box[0], box[2], size[0], margin)
    top, bottom = _span(box[1], box[3], size[1], margin)
    return left, top, right, bottom


def _span(start: float, end: float, length: int, margin: float) -> tuple[float, float]:
    beside = margin * (end - start)
    first = min(max(0, math.floor(start - beside)), length - 1)
    return float(first), float(max(min(math.ceil(end + beside), length), first + 1))
