"""Training and validation pictures: parted by photo first, and only then are parts cut out of photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shopvision.errors import UserError
from shopvision.fashion.detection.coco import DetectionData, LabelledPicture
from shopvision.images import Box
from shopvision.training.parting import draw

# Published: how far a cut goes beyond a box, in shares of the box.
MARGINS = (0.3, 0.9)
# Of a box that the cut divides, so much of its width (height) must be left: half a shoe is no shoe any more, but the
# upper half of a dress is a dress.
LEAST_WIDTH, LEAST_HEIGHT = 0.5, 0.4


def split_by_photo(data: DetectionData, valid: float, seed: int) -> tuple[DetectionData, DetectionData]:
    """Training and validation pictures; all that were cut from one photo are on one side.

    A photo's side depends on its name and the seed as far as shares allow, not on the order of the file.

    Args:
        data: to be parted.
        valid: share of the photos to validate on.
        seed: of the draw.

    Raises:
        UserError: one side would be empty.
    """
    photos = sorted({picture.photo for picture in data.pictures}, key=lambda photo: draw(photo, seed))
    count = round(valid * len(photos))
    if not 0 < count < len(photos):
        raise UserError(
            f"{len(photos)} photos cannot be parted with a share of {valid:g}: add some, or name data.valid."
        )
    chosen = set(photos[:count])
    return (
        data.with_pictures(picture for picture in data.pictures if picture.photo not in chosen),
        data.with_pictures(picture for picture in data.pictures if picture.photo in chosen),
    )


def require_apart(train: DetectionData, valid: DetectionData) -> None:
    """Refuse to measure on photos that were trained on.

    Raises:
        UserError: names one.
    """
    both = {picture.photo for picture in train.pictures} & {picture.photo for picture in valid.pictures}
    if both:
        raise UserError(
            f"The photo {min(both)} is in training and validation ({len(both)} such photos): what is measured would be "
            "what was learnt by heart. Remove it from one of the files."
        )


def with_parts(data: DetectionData, seed: int) -> DetectionData:
    """The pictures, and for each with two boxes or more a part around one of them.

    A part that shows as many boxes as the picture is no new one and is left out.
    """
    parts = []
    for picture in data.pictures:
        if len(picture.boxes) < 2:
            continue
        generator = np.random.default_rng([seed, int.from_bytes(draw(picture.photo, seed)[:8], "big")])
        centre = picture.boxes[generator.integers(len(picture.boxes))]
        part = cut(picture, around(centre, generator.uniform(*MARGINS), picture.size))
        if len(part.boxes) not in {0, len(picture.boxes)}:
            parts.append(part)
    return data.with_pictures((*data.pictures, *parts))


def around(box: Sequence[float], margin: float, size: tuple[int, int]) -> Box:
    """The part of a picture of ``size`` (width, height) around a box: ``margin`` of its sides beyond each edge."""
    left, top, right, bottom = map(float, box)
    wide, high = int(margin * (right - left)), int(margin * (bottom - top))
    return (
        max(0.0, float(int(left) - wide)),
        max(0.0, float(int(top) - high)),
        min(float(size[0]), float(int(right) + wide)),
        min(float(size[1]), float(int(bottom) + high)),
    )


def cut(picture: LabelledPicture, part: Box) -> LabelledPicture:
    """A part of a picture with the boxes that enough of is left, cut at its edges; labels go with their boxes."""
    left, top, right, bottom = part
    edges = np.array([left, top, left, top], np.float32)
    size = (right - left, bottom - top)
    inside = (picture.boxes - edges).clip(0, [*size, *size]).astype(np.float32)
    whole, left_over = picture.boxes[:, 2:] - picture.boxes[:, :2], inside[:, 2:] - inside[:, :2]
    divided = (picture.boxes[:, :2] < [left, top]) | (picture.boxes[:, 2:] > [right, bottom])
    kept = (~divided | (left_over > np.array([LEAST_WIDTH, LEAST_HEIGHT]) * whole)).all(axis=1)
    return replace(
        picture, size=(int(size[0]), int(size[1])), boxes=inside[kept], labels=picture.labels[kept], part=part
    )
