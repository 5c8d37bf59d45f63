"""A page to look at: photos with their garments, and what looks like each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shopvision.errors import UserError
from shopvision.images import Box, Decoded
from shopvision.reports import render_page
from shopvision.reports.thumbnails import thumbnail
from shopvision.search.results import Garment, PhotoFailure, PhotoResult

PHOTO_PIXELS = 420


@dataclass(frozen=True, slots=True)
class ShownGarment:
    """A garment as the page shows it.

    Attributes:
        key: of its crop; empty where it is the whole photo.
        left, top, width, height: of its box, in percent of the photo.
        above: how many larger boxes of the photo may cover it.
    """

    garment: Garment
    key: str
    left: float
    top: float
    width: float
    height: float
    above: int


@dataclass(frozen=True, slots=True)
class ShownPhoto:
    """A photo as the page shows it, under the key of its picture."""

    result: PhotoResult
    key: str
    garments: list[ShownGarment]

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        return " ".join([self.result.photo, *self.result.notes, *self._words()]).lower()

    def _words(self) -> Iterator[str]:
        for shown in self.garments:
            yield shown.garment.label or ""
            for item in shown.garment.items:
                yield from (item.item_id, item.title or "", item.category or "", item.brand or "")


class SearchPage:
    """Gathers photos for a page."""

    def __init__(self, output: Path) -> None:
        """Nothing is written yet.

        Args:
            output: the HTML file.

        Raises:
            UserError: there is no folder for it.
        """
        if not output.parent.is_dir() or output.is_dir():
            raise UserError(f"{output} cannot be written: name a file in a folder that exists as --output.")
        self.output = output
        self._photos: list[ShownPhoto] = []
        self._pictures: dict[str, str] = {}

    def add(self, result: PhotoResult, decoded: Decoded) -> None:
        """Show a photo and its answer; small copies of the pixels are kept."""
        key = f"photo {len(self._photos)}"
        self._pictures[key] = thumbnail(decoded, PHOTO_PIXELS)
        garments = []
        for garment in result.garments:
            is_whole = garment.box == (0.0, 0.0, *map(float, result.size))
            crop = "" if is_whole else f"{key} {garment.number}"
            if crop:
                self._pictures[crop] = thumbnail(decoded.region(garment.box))
            above = sum(_area(other.box) > _area(garment.box) for other in result.garments)
            garments.append(ShownGarment(garment, crop, *_percent(garment.box, result.size), above))
        self._photos.append(ShownPhoto(result, key, garments))

    def write(self, failures: Sequence[PhotoFailure] = ()) -> None:
        """Write the page, with its pictures inside.

        Args:
            failures: photos that could not be searched with.

        Raises:
            UserError: the file cannot be written.
        """
        results = [shown.result for shown in self._photos]
        garments = [garment for result in results for garment in result.garments]
        facts = [("photos", f"{len(results):,}"), ("garments", f"{sum(one.label is not None for one in garments):,}")]
        facts += [("model", model) for model in dict.fromkeys(result.model for result in results)]
        facts += [("index", path.rpartition("/")[2]) for path in dict.fromkeys(result.generation for result in results)]
        render_page(
            "search.html",
            self.output,
            {item.image_id: item.uri for garment in garments for item in garment.items},
            made=self._pictures,
            title="Found by photo",
            subtitle="Each photo with its garments and the items that look most like them, with cosine similarities.",
            facts=facts,
            photos=self._photos,
            failures=[{"item_key": one.photo, **asdict(one)} for one in failures],
        )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _percent(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """left, top, width, height."""
    left, top = 100 * box[0] / size[0], 100 * box[1] / size[1]
    return left, top, 100 * box[2] / size[0] - left, 100 * box[3] / size[1] - top
