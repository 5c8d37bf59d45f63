"""Which parts of a photo are searched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shopvision.errors import ItemError
from shopvision.fashion.composition.policy import MOST_REGIONS
from shopvision.fashion.detection.regions import Region
from shopvision.images import Box
from shopvision.search.options import GarmentChoice

WHOLE = 0
INSTEAD = "The whole photo was searched with."


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a photo; see ``Garment``.

    Attributes:
        is_whole: there is nothing to cut out.
    """

    number: int
    box: Box
    label: str | None = None
    score: float | None = None
    is_whole: bool = False


def choose_parts(
    size: tuple[int, int], found: Sequence[Region] | ItemError | None, choice: GarmentChoice
) -> tuple[list[Part], list[str]]:
    """The parts, by number, and what there is to say about them; of a crowd, the ``MOST_REGIONS`` best.

    Args:
        size: (width, height) of the photo.
        found: garments, the best first; why there can be none; or None where no detector serves.
        choice: what the caller wants.

    Raises:
        ItemError: ``empty_region``, the box lies outside; ``no_such_garment``, there is none of this number.
    """
    if choice.box is not None:
        return [Part(WHOLE, _within(choice.box, size), choice.label)], []
    regions = found[:MOST_REGIONS] if isinstance(found, Sequence) else ()
    parts = [Part(number, one.box, one.label, one.score) for number, one in enumerate(regions, 1)]
    if choice.number is not None and choice.number > len(parts):
        raise ItemError("no_such_garment", f"There is no garment {choice.number}: {_counted(parts)} in the photo.")
    if not parts:
        whole = Part(WHOLE, (0.0, 0.0, float(size[0]), float(size[1])), is_whole=True)
        return [whole], [f"{_why(found)} {INSTEAD}"]
    wanted = [
        part
        for part in parts
        if choice.number in {None, part.number} and (choice.label is None or part.label == choice.label)
    ]
    labels = ", ".join(dict.fromkeys(str(part.label) for part in parts))
    return wanted, [] if wanted else [f"No {choice.label} was found, but {labels}."]


def _within(box: Box, size: tuple[int, int]) -> Box:
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(size[0]), box[2]), min(float(size[1]), box[3])
    if left >= right or top >= bottom:
        raise ItemError("empty_region", f"The box {box} lies outside the photo of {size[0]} x {size[1]} pixels.")
    return left, top, right, bottom


def _counted(parts: Sequence[Part]) -> str:
    if not parts:
        return "none was found"
    return "one was found" if len(parts) == 1 else f"{len(parts)} were found"


def _why(found: Sequence[Region] | ItemError | None) -> str:
    if isinstance(found, ItemError):
        return found.message
    return "No model serves as fashion_detector." if found is None else "No garment was found."
