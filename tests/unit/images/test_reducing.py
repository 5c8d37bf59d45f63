"""Decoded pictures made smaller: at the scales that a JPEG would be read at, with boxes that stay true."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shopvision.images import Decoded
from shopvision.images.reducing import reduced


def decoded(width: int, height: int) -> Decoded:
    return Decoded(Image.new("RGB", (width, height)), (width, height), (0.0, 0.0, width, height))


@pytest.mark.parametrize(
    ("size", "target", "most", "expected"),
    [
        ((400, 300), (100, 100), 10**6, (134, 100)),  # a third; the last column holds one pixel of three
        ((400, 300), (150, 210), 10**6, (400, 300)),  # half would be too narrow
        ((90, 80), (100, 100), 10**6, (90, 80)),
        ((4000, 20), (100, 100), 10**4, (1334, 7)),  # whatever the target: no more than so many pixels
    ],
)
def test_sizes(size: tuple[int, int], target: tuple[int, int], most: int, expected: tuple[int, int]) -> None:
    small = reduced(decoded(*size), target, most)
    assert small.image.size == expected
    assert small.size == size
    assert small.box[2] == pytest.approx(size[0] * expected[1] / size[1], rel=0.05)


def test_pixels_are_means_and_regions_stay_where_they_are() -> None:
    image = Image.new("RGB", (100, 80), "blue")
    image.paste((200, 40, 0), (30, 20, 60, 70))
    small = reduced(Decoded(image, (200, 160), (0.0, 0.0, 100.0, 80.0)), (16, 20), 10**6)
    assert small.image.size == (20, 16)
    part = small.region((60, 40, 120, 140))
    assert part.size == (60, 100)
    assert (np.asarray(part.image) == (200, 40, 0)).all()


def test_the_copy_stands_for_itself() -> None:
    original = decoded(50, 40)
    copy = reduced(original, (40, 50), 10**6)
    original.image.paste((255, 255, 255), (0, 0, 50, 40))
    assert not np.asarray(copy.image).any()
