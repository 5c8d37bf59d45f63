"""Numbers of regions where one detector looked at the same bytes twice.

Two workers that look at a picture at the same time, for two encoders or for one, do not find quite the same: it was
decoded at another scale or stood in another batch, boxes move by a little and scores near each other change places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shopvision.fashion.composition.found import WHOLE, FoundRegion
from shopvision.images import Box

# Of two boxes of one class that overlap by more than 0.7 a detector's rules keep one, so that what a second look finds
# at half of a garment and more is that garment.
SAME_GARMENT_IOU = 0.5


def renumbered(
    vectors: Mapping[int, bytes], found: Sequence[FoundRegion], stored: Sequence[FoundRegion]
) -> dict[int, bytes]:
    """Vectors by the numbers of what is stored; those of garments that are not in it are left out.

    Args:
        vectors: by numbers of ``found``.
        found: by one look at a picture, the whole picture first.
        stored: by another look at the same bytes, likewise.
    """
    numbers: dict[int, bytes] = {}
    for number in sorted(vectors):  # the best garment chooses first
        place = _place(found[number], stored, taken=numbers) if number != WHOLE else WHOLE
        if place is not None:
            numbers[place] = vectors[number]
    return numbers


def _place(region: FoundRegion, stored: Sequence[FoundRegion], taken: Mapping[int, bytes]) -> int | None:
    """Which of ``stored`` is the same garment: that of its class which it overlaps most."""
    overlaps = {
        number: _iou(region.box, other.box)
        for number, other in enumerate(stored)
        if number != WHOLE and number not in taken and other.label == region.label
    }
    best = max(overlaps, key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] >= SAME_GARMENT_IOU else None


def _iou(one: Box, other: Box) -> float:
    """Intersection over union."""
    both = _area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return both / (_area(one) + _area(other) - both)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
