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
_LINEAR = np.where(_SHARES <= 0.04045, _SHARES / 12.92, ((_SHARES + 0.055) / 1.055) ** 2.4).astype(np.float32)
# Linear sRGB -> CIE XYZ, relative to the white of D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_RELATIVE = (_TO_XYZ.T / _WHITE).astype(np.float32)
# Above it, the lightness of a colour is a cube root, below it a line.
_DARK = np.float32((6 / 29) ** 3)
# Makes coordinates of colours positive: bits of positive floats have the order of the floats.
_BEYOND_COORDINATES = np.float32(256)


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


def garment_colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
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
    lightness, red, yellow = coordinates = np.ascontiguousarray(lab.transpose(2, 0, 1))
    ground = (lightness >= GROUND_LIGHTNESS) & (red**2 + yellow**2 <= GROUND_CHROMA**2)
    weights = np.where(ground, np.float32(0), middle)
    weights[weights.sum(axis=1) < LEAST_GARMENT * middle.sum()] = middle
    return _weighted_medians(coordinates, weights).T


def to_lab(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 3) sRGB -> (..., 3) CIELAB, CIE 15:2004, white of D65; to 0.001."""
    relative = _LINEAR[colours] @ _TO_RELATIVE
    cube = np.where(relative > _DARK, relative ** np.float32(1 / 3), relative * np.float32(841 / 108) + 4 / 29)
    lab: NDArray[np.float32] = np.empty_like(cube)
    lab[..., 0] = 116 * cube[..., 1] - 16
    lab[..., 1] = 500 * (cube[..., 0] - cube[..., 1])
    lab[..., 2] = 200 * (cube[..., 1] - cube[..., 2])
    return lab


def _middle(height: int, width: int) -> NDArray[np.float32]:
    """(height * width) weights that fall from 1 in the middle to a seventh in the corners."""
    rows, columns = (np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1) for count in (height, width))
    weights: NDArray[np.float64] = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2)).ravel()
    return weights.astype(np.float32)


def _weighted_medians(values: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(d, n, m) coordinates, (n, m) weights -> (d, n)."""
    # Sorting numbers that hold a value's bits and its place takes a third of the time of argsort.
    bits = (values + _BEYOND_COORDINATES).view(np.uint32).astype(np.uint64)
    keys = bits << np.uint64(32) | np.arange(values.shape[2], dtype=np.uint64)
    keys.sort(axis=2)
    order = keys.astype(np.uint32).astype(np.intp)
    upto = np.cumsum(np.take_along_axis(weights[None], order, axis=2), axis=2)
    middle = np.argmax(upto >= upto[:, :, -1:] / 2, axis=2)[:, :, None]
    return np.take_along_axis(values, np.take_along_axis(order, middle, axis=2), axis=2)[:, :, 0]
