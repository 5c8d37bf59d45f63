"""Which colour a garment has, from the pixels of its box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from shopvision.fashion.composition.found import Lab

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images import Decoded

# Pixels that a side is brought to: a colour needs no more.
SIDE = 48
# Ground of catalogue photos: at least so light, at most so far from grey. Fabric that is called white has shades.
GROUND_LIGHTNESS, GROUND_CHROMA = 93.0, 5.0
# Where less than this share is no ground, the garment itself is white.
LEAST_GARMENT = 0.05
# Linear sRGB -> CIE XYZ, IEC 61966-2-1, with the white of D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.95047, 1.0, 1.08883])


def region_colour(part: Decoded) -> Lab:
    """The colour of the garment whose box was cut out of a picture."""
    box = part.box
    small = part.image.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
    return garment_colour(np.asarray(small))


def garment_colour(pixels: NDArray[np.uint8]) -> Lab:
    """The colour of the garment in the middle of some pixels.

    White ground is left out, and the middle counts most, because the corners of a box show what is behind. Of each
    coordinate the median is taken, which prints, skin and seams do not move.

    Args:
        pixels: (height, width, 3) uint8, sRGB, of its box.

    Returns:
        Its CIELAB coordinates.
    """
    lab = to_lab(pixels.reshape(-1, 3))
    weights = _middle(*pixels.shape[:2])
    ground = (lab[:, 0] >= GROUND_LIGHTNESS) & (np.hypot(lab[:, 1], lab[:, 2]) <= GROUND_CHROMA)
    if weights[~ground].sum() >= LEAST_GARMENT * weights.sum():
        lab, weights = lab[~ground], weights[~ground]
    lightness, redness, yellowness = (_weighted_median(values, weights) for values in lab.T)
    return lightness, redness, yellowness


def to_lab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, 3) sRGB -> (n, 3) CIELAB, CIE 15:2004, white of D65."""
    values = colours / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    relative = linear @ _TO_XYZ.T / _WHITE
    cube = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = cube.T
    return np.column_stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _middle(height: int, width: int) -> NDArray[np.float64]:
    """(height * width) weights that fall from 1 in the middle to a seventh in the corners."""
    rows, columns = (np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1) for count in (height, width))
    weights: NDArray[np.float64] = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2)).ravel()
    return weights


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] / 2)])
