"""From encoded bytes to the pixels a model wants, exactly as its card says."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from shopvision.images.decoding import Decoded, PictureLimits, decoding

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# In crops. Beyond, only what the crop keeps is resized: 20,000 x 1 pixels would otherwise become 5,120,000 x 256.
LARGEST_RESIZED = 16


class Preprocessing(BaseModel):
    """How a model wants its pictures: part of its card, never of task code.

    Attributes:
        size: (height, width) of the model's input, pixels.
        crop_fraction: share of the resized shorter side that the centre crop keeps.
        interpolation: filter of the resize.
        resize_mode: ``center`` resizes the shorter side and crops the middle; ``squash`` ignores the aspect ratio.
        mean: per channel, of values in 0..1. Applied by the encoder, not here.
        std: likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int]
    crop_fraction: float = Field(1.0, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize_mode: Literal["center", "squash"] = "center"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) before the crop, as timm computes it."""
        height, width = self.size
        return math.floor(height / self.crop_fraction), math.floor(width / self.crop_fraction)

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) to decode pictures for; see ``decoding``."""
        return self.resized

    @property
    def whole(self) -> Preprocessing:
        """The same, of whole pictures."""
        return self

    def part(self, decoded: Decoded) -> Decoded:
        """What of a picture the model looks at: all of it, unless a model knows better. Called in threads."""
        return decoded


def prepare(data: bytes, preprocessing: Preprocessing, limits: PictureLimits | None = None) -> NDArray[np.uint8]:
    """Decode, resize and crop one picture.

    The same pixels as timm's evaluation transform, except that large JPEGs are decoded at reduced scale first.

    Args:
        data: an encoded picture.
        preprocessing: what the model's card says.
        limits: by default those of the settings.

    Returns:
        uint8 of shape (height, width, 3), RGB.

    Raises:
        ItemError: see ``decoding``.
    """
    with decoding(data, target=preprocessing.target, limits=limits) as decoded:
        return fit(decoded, preprocessing)


def fit(decoded: Decoded, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize and crop a picture, or a region of one: uint8 of shape (height, width, 3), RGB."""
    decoded = preprocessing.part(decoded)
    width, height = _resized(decoded.size, preprocessing)
    resampling = _RESAMPLING[preprocessing.interpolation]
    crop_height, crop_width = preprocessing.size
    left, top = round((width - crop_width) / 2), round((height - crop_height) / 2)
    if width * height <= LARGEST_RESIZED * crop_width * crop_height:
        resized = decoded.image.resize((width, height), resampling, box=decoded.box)
        return np.array(resized.crop((left, top, left + crop_width, top + crop_height)))
    box = decoded.box
    step_x, step_y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    kept = (
        box[0] + left * step_x,
        box[1] + top * step_y,
        min(box[0] + (left + crop_width) * step_x, box[2]),
        min(box[1] + (top + crop_height) * step_y, box[3]),
    )
    return np.array(decoded.image.resize((crop_width, crop_height), resampling, box=kept))


def _resized(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """(width, height) before the crop for a picture of ``size``, with each of timm's ways to round."""
    height, width = preprocessing.resized
    if preprocessing.resize_mode == "squash":
        return width, height
    if height == width:  # torchvision's rule for a single number
        short, long = min(size), max(size)
        longer = int(height * long / short)
        return (height, longer) if size[0] <= size[1] else (longer, height)
    ratio = min(size[0] / width, size[1] / height)  # timm's ResizeKeepRatio
    return round(size[0] / ratio), round(size[1] / ratio)
