"""Which of the regions that were found in a picture get a vector. Tables alone decide, so it is cheap to ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from shopvision.fashion.composition.found import WHOLE
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.images import Box


class Garment(Protocol):
    """A region that a detector found."""

    @property
    def box(self) -> Box: ...  # noqa: D102
    @property
    def label(self) -> str | None: ...  # noqa: D102
    @property
    def score(self) -> float | None: ...  # noqa: D102


def wanted_regions(
    policy: CropPolicy,
    classes: Mapping[str, str],
    regions: Sequence[Garment],
    size: tuple[int, int],
    category: str | None,
) -> tuple[int, ...]:
    """Numbers of the regions that get a vector, rising; 0 is the whole picture, 1 the first of ``regions``.

    Args:
        policy: what is embedded.
        classes: category path -> class of the detector.
        regions: garments of one picture, the best first, with boxes in its pixels.
        size: (width, height) of the picture.
        category: path of the item that the picture belongs to.
    """
    if policy.crop == "whole":
        return (WHOLE,)
    fit = {
        number: region
        for number, region in enumerate(regions, WHOLE + 1)
        if (region.score or 0.0) >= policy.score and min(sides(region.box, size)) >= policy.smallest_side
    }
    if not fit:
        return (WHOLE,)
    if policy.crop == "all":
        return tuple(fit)
    expected = class_of(category, classes)
    of_class = [number for number, region in fit.items() if region.label == expected]
    return (max(of_class or fit, key=lambda number: (area(fit[number].box, size), -number)),)


def class_of(category: str | None, classes: Mapping[str, str]) -> str | None:
    """The class of the longest category path that ``category`` begins with, in whole parts; None where none does."""
    parts = (category or "").split("/")
    for count in range(len(parts), 0, -1):
        found = classes.get("/".join(parts[:count]))
        if found is not None:
            return found
    return None


def sides(box: Box, size: tuple[int, int]) -> tuple[float, float]:
    """(width, height) of what of a box lies within a picture of ``size`` (width, height)."""
    width = min(box[2], size[0]) - max(box[0], 0.0)
    height = min(box[3], size[1]) - max(box[1], 0.0)
    return max(width, 0.0), max(height, 0.0)


def area(box: Box, size: tuple[int, int]) -> float:
    """Pixels of what of a box lies within a picture."""
    width, height = sides(box, size)
    return width * height
