"""Decoded pictures made smaller, to be kept: what reading a JPEG at a scale does, for every format."""

from __future__ import annotations

from shopvision.images.decoding import Decoded


def reduced(decoded: Decoded, target: tuple[int, int], most_pixels: int) -> Decoded:
    """A copy at a whole fraction of the scale.

    Args:
        decoded: a picture that is let go of.
        target: (height, width) that no side of the copy is below, where ``most_pixels`` allows.
        most_pixels: of the copy.
    """
    image = decoded.image
    left, top, right, bottom = decoded.box
    factor = max(1, min(int((right - left) // target[1]), int((bottom - top) // target[0])))
    while -(-image.width // factor) * -(-image.height // factor) > most_pixels:
        factor += 1
    return Decoded(image.reduce(factor), decoded.size, (left / factor, top / factor, right / factor, bottom / factor))
