"""Which colour a garment has, from the pixels of its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from shopvision.fashion.composition.found import Lab

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images import Box, Decoded

# Pixels of a side that are looked at: a colour needs no more.
SIDE = 32
# Ground of catalogue photos: at least so light, at most so far from grey. Fabric that is called white has shades.
GROUND_LIGHTNESS, GROUND_CHROMA = 93.0, 5.0
# Where less than this share is no ground, the garment itself is white.
LEAST_GARMENT = 0.05
_SHARES = np.arange(256) / 255.0
# sRGB -> linear, IEC 61966-2-1.
_LINEAR = np.where(_SHARES <= 0.04045, _SHARES / 12.92, ((_SHARES + 0.055) / 1.055) ** 2.4)
# Linear sRGB -> CIE XYZ, with the white of D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.95047, 1.0, 1.08883])


def region_colours(decoded: Decoded, boxes: Sequence[Box]) -> list[Lab]:
    """The colours of the garments in some boxes of a picture, in its pixels at full scale.

    Pixels are picked and not averaged: a median needs no smoothing, and edges have colours that are nowhere else.
    """
    picked = [
        np.asarray(decoded.image.resize((SIDE, SIDE), Image.Resampling.NEAREST, box=decoded.place(box)))
        for box in boxes
    ]
    if not picked:
        return []
    return [(lab[0], lab[1], lab[2]) for lab in garment_colours(np.stack(picked)).tolist()]


def garment_colours(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colours of the garments in the middle of some pixels.

    White ground is left out, and the middle counts most, because the corners of a box show what is behind. Of each
    coordinate the median is taken, which prints, skin and seams do not move.

    Args:
        pixels: (n, height, width, 3) uint8, sRGB, of n boxes.

    Returns:
        (n, 3) CIELAB coordinates.
    """
    count, height, width, _ = pixels.shape
    lab = to_lab(pixels).reshape(count, height * width, 3)
    middle = _middle(height, width)
    ground = (lab[..., 0] >= GROUND_LIGHTNESS) & (np.hypot(lab[..., 1], lab[..., 2]) <= GROUND_CHROMA)
    weights = np.where(ground, 0.0, middle)
    weights[weights.sum(axis=1) < LEAST_GARMENT * middle.sum()] = middle
    return _weighted_medians(lab, weights)


def to_lab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(..., 3) sRGB -> (..., 3) CIELAB, CIE 15:2004, white of D65."""
    relative = _LINEAR[colours] @ _TO_XYZ.T / _WHITE
    cube = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = cube[..., 0], cube[..., 1], cube[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _middle(height: int, width: int) -> NDArray[np.float64]:
    """(height * width) weights that fall from 1 in the middle to a seventh in the corners."""
    rows, columns = (np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1) for count in (height, width))
    weights: NDArray[np.float64] = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2)).ravel()
    return weights


def _weighted_medians(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m, d) values, (n, m) weights -> (n, d)."""
    order = np.argsort(values, axis=1)
    upto = np.cumsum(np.take_along_axis(weights[..., None], order, axis=1), axis=1)
    middle = np.argmax(upto >= upto[:, -1:] / 2, axis=1)[:, None]
    return np.take_along_axis(np.take_along_axis(values, order, axis=1), middle, axis=1)[:, 0]
