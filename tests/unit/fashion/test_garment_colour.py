"""The colour of a garment, against published CIELAB values of sRGB colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shopvision.fashion.composition.colour import garment_colours, region_colours, to_lab
from shopvision.images import Decoded

# Bruce Lindbloom's calculator, sRGB with D65, rounded.
PUBLISHED = {
    (255, 0, 0): (53.2, 80.1, 67.2),
    (0, 255, 0): (87.7, -86.2, 83.2),
    (0, 0, 255): (32.3, 79.2, -107.9),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (119, 119, 119): (50.0, 0.0, 0.0),
}
WHITE, RED = (255, 255, 255), (255, 0, 0)


def field(colour: tuple[int, int, int], *patches: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> np.ndarray:
    pixels = np.full((40, 30, 3), colour, np.uint8)
    for (left, top, right, bottom), other in patches:
        pixels[top:bottom, left:right] = other
    return pixels


def colour_of(pixels: np.ndarray) -> list[float]:
    """Beside another garment, which changes nothing."""
    return list(garment_colours(np.stack([pixels, pixels // 2]))[0])


@pytest.mark.parametrize(("colour", "lab"), PUBLISHED.items())
def test_published_values(colour: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(to_lab(np.array([colour], np.uint8))[0], lab, atol=0.11)
    np.testing.assert_allclose(colour_of(field(colour)), lab, atol=0.11)


def test_white_ground_is_left_out_also_where_there_is_more_of_it() -> None:
    """A red strap on white: a quarter of the box."""
    near_white = field((247, 248, 246), ((10, 10, 20, 40), RED))
    np.testing.assert_allclose(colour_of(near_white), PUBLISHED[RED], atol=0.11)


def test_a_white_garment_is_white() -> None:
    lightness, *chroma = colour_of(field(WHITE, ((0, 0, 2, 2), (0, 0, 0))))
    assert lightness > 99
    assert np.hypot(*chroma) < 1


def test_prints_and_what_is_in_the_corners_do_not_move_it() -> None:
    corners = [((0, 0, 9, 12), (0, 255, 0)), ((21, 28, 30, 40), (0, 0, 255))]
    found = colour_of(field(RED, *corners, ((12, 18, 18, 22), (0, 0, 0))))
    np.testing.assert_allclose(found, PUBLISHED[RED], atol=0.11)


def test_the_pixels_of_a_region_alone_count() -> None:
    image = Image.new("RGB", (100, 80), "blue")
    image.paste(RED, (20, 20, 60, 70))
    decoded = Decoded(image, image.size, (0.0, 0.0, 100.0, 80.0))
    found = region_colours(decoded, [(20, 20, 60, 70), (99.2, 0, 100, 0.5)])
    np.testing.assert_allclose(found, [PUBLISHED[RED], PUBLISHED[0, 0, 255]], atol=0.11)
    assert region_colours(decoded, []) == []
