"""The hash of photos, against the transform of another library."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from shopvision.fashion.posts.photo_hash import MOST_DISTANCE, bands, distance, photo_hash
from shopvision.fashion.posts.rules import MOST_PHOTO_DISTANCE
from shopvision.fashion.posts.store import nearest_photos
from shopvision.images import Decoded, decoding


def photo(seed: int) -> Image.Image:
    """Soft blots of all sizes, as photos have them."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)).resize((240, 320)), np.float32
        )
        for side in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def hashed(image: Image.Image) -> int:
    return photo_hash(Decoded(image, image.size, (0.0, 0.0, *image.size)))


def saved(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_the_bits_are_those_of_the_published_transform() -> None:
    image = photo(1)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low: NDArray[np.float64] = dctn(grey, type=2)[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert hashed(image) & (2**64 - 1) == int(bits, 2)
    assert bits.count("1") == 32


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_and_other_photos_far(seed: int) -> None:
    image = photo(seed)
    copies = [
        image.resize((120, 160)), image.resize((719, 961)), image.point(lambda value: min(255, int(value * 1.05 + 4))),
        image.crop((1, 1, 239, 319)),
    ]  # fmt: skip
    found = [hashed(copy) for copy in copies]
    for target in (None, (40, 40)):
        with decoding(saved(image, 50), target=target) as decoded:
            found.append(photo_hash(decoded))
    assert max(distance(hashed(image), one) for one in found) <= MOST_DISTANCE
    assert distance(hashed(image), hashed(photo(seed + 100))) > 10


def test_near_hashes_have_a_band_in_common() -> None:
    generator = np.random.default_rng(3)
    assert MOST_DISTANCE == MOST_PHOTO_DISTANCE
    for _ in range(200):
        value = int(generator.integers(-(2**63), 2**63 - 1))
        flipped = value ^ sum(1 << int(bit) for bit in generator.choice(63, MOST_DISTANCE, replace=False))
        assert distance(value, flipped) == MOST_DISTANCE
        assert set(bands(value)) & set(bands(flipped))
        assert all(0 <= band < 2**31 for band in bands(value))
    assert len(set(bands(0) + bands(-1))) == 10


def test_the_nearest_photo_is_found_and_the_first_of_equals() -> None:
    kept = [("far", 0b1111), ("b", 0b0011), ("c", 0b0110)]
    assert nearest_photos({"x": 0b0010, "y": -1, "z": 0b1111}, kept, 2) == {"x": "b", "z": "far"}
    assert nearest_photos({"x": 1}, [], 4) == {}
