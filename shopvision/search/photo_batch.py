"""Photos that go through the models together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.fashion.composition.found import Lab
from shopvision.fashion.detection.predict import PreparedPicture
from shopvision.fashion.detection.regions import Region
from shopvision.images import Decoded
from shopvision.images.reader import Reading, whole
from shopvision.index.generation import Generation
from shopvision.search.filters import AllowedPictures
from shopvision.search.finding import Finder, Query
from shopvision.search.garments import Part, choose_parts
from shopvision.search.notes import item_filter, item_notes, photo_notes
from shopvision.search.options import GarmentChoice, SearchOptions
from shopvision.search.photos import Photo, ReadPhoto
from shopvision.search.query_models import Pixels, QueryModels
from shopvision.search.results import Garment, PhotoFailure, PhotoOutcome, PhotoResult
from shopvision.search.stopwatch import Stopwatch

OnPhoto: TypeAlias = Callable[[PhotoResult, Decoded], None]


@dataclass(slots=True)
class _Photo:
    """A photo on its way; a failure ends it."""

    name: str
    decoded: Decoded | None = None
    prepared: PreparedPicture | None = None
    found: Sequence[Region] | ItemError | None = None
    notes: list[str] = field(default_factory=list)
    garments: list[Garment] = field(default_factory=list)
    failure: ItemError | None = None


@dataclass(frozen=True, slots=True)
class _Cut:
    """A part of a photo, as the encoder reads it."""

    photo: _Photo
    part: Part
    pixels: Pixels
    colour: Lab | None

    @property
    def name(self) -> str:
        return "The photo" if self.part.is_whole else f"Garment {self.part.number}" if self.part.number else "The box"


class PhotoBatch:
    """Answers some photos after the other, with one generation and its models."""

    def __init__(
        self,
        generation: Generation,
        made: QueryModels,
        options: SearchOptions,
        choice: GarmentChoice,
        allowed: AllowedPictures,
    ) -> None:
        self._generation, self._models = generation, made
        self._options, self._choice, self._allowed = options, choice, allowed

    def answer(
        self, outcomes: Reading[ReadPhoto], names: Sequence[Photo], on_photo: OnPhoto | None
    ) -> Iterator[PhotoOutcome]:
        """The answers for the next photos.

        Args:
            outcomes: what was read of them is taken from here.
            names: as they were given.
            on_photo: gets each answer with the photo's pixels.
        """
        stopwatch = Stopwatch()
        with stopwatch.step("read"):
            photos = [_taken("" if isinstance(name, bytes) else str(name), outcomes) for name in names]
        with stopwatch.step("detect"):
            self._detect([photo for photo in photos if photo.prepared is not None])
        with stopwatch.step("embed"):
            cuts = [cut for photo in photos for cut in self._cut(photo)]
            vectors = self._models.encode([cut.pixels for cut in cuts], [cut.part.label for cut in cuts])
        self._find(cuts, vectors, stopwatch)
        for photo in photos:
            if photo.failure is not None or photo.decoded is None:
                failure = photo.failure or ItemError("bad_vector", "The model gives this photo no finite vector.")
                yield PhotoFailure(photo.name, failure.code, failure.message)
                continue
            result = self._result(photo, stopwatch)
            if on_photo is not None:
                on_photo(result, photo.decoded)
            yield result

    def _detect(self, photos: Sequence[_Photo]) -> None:
        found = self._models.detect([photo.prepared for photo in photos if photo.prepared is not None])
        for photo, one in zip(photos, found, strict=True):
            photo.found = one

    def _cut(self, photo: _Photo) -> list[_Cut]:
        if photo.decoded is None:
            return []
        try:
            parts, photo.notes = choose_parts(photo.decoded.size, photo.found, self._choice)
            return [self._one_cut(photo, photo.decoded, part) for part in parts]
        except ItemError as error:
            photo.failure = error
            return []

    def _one_cut(self, photo: _Photo, decoded: Decoded, part: Part) -> _Cut:
        asks_colour = self._options.colour > 0 and self._models.has_regions
        colour = self._models.colour(decoded, part) if asks_colour else None
        return _Cut(photo, part, self._models.crop(decoded, part), colour)

    def _find(self, cuts: Sequence[_Cut], vectors: NDArray[np.float32], stopwatch: Stopwatch) -> None:
        # NaN compares false.
        fine = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01
        for cut in (cut for cut, is_fine in zip(cuts, fine, strict=True) if not is_fine):
            message = f"{cut.name} has no vector: the model gives none that is finite."
            cut.photo.notes.append(message)
            if cut.part.is_whole or self._choice.box is not None:
                cut.photo.failure = ItemError("bad_vector", message)
        made, options = self._models, self._options
        good = [(cut, place) for place, cut in enumerate(cuts) if fine[place]]
        queries = [
            Query(vectors[place : place + 1], item_filter(options, cut.part.label, made.classes), cut.colour)
            for cut, place in good
        ]
        finder = Finder(
            self._generation, options, self._allowed, made.detector_spec if made.has_regions else None,
            made.routes, stopwatch,
        )  # fmt: skip
        for (cut, _), query, items in zip(good, queries, finder.find(queries), strict=True):
            part = cut.part
            notes = item_notes(items, query.filter, options)
            cut.photo.garments.append(Garment(part.number, part.box, part.label, part.score, items, notes))

    def _result(self, photo: _Photo, stopwatch: Stopwatch) -> PhotoResult:
        decoded = photo.decoded
        if decoded is None:
            raise AssertionError("a photo without pixels has failed")
        return PhotoResult(
            photo=photo.name,
            size=decoded.size,
            garments=tuple(photo.garments),
            notes=(*photo.notes, *photo_notes(self._generation, self._models, self._options)),
            generation=self._generation.path,
            model=self._generation.model,
            detector=self._models.detector_spec,
            seconds={name: round(seconds, 4) for name, seconds in stopwatch.seconds.items()},
        )


def _taken(name: str, outcomes: Reading[ReadPhoto]) -> _Photo:
    outcome = outcomes.take()
    if outcome is None:
        raise AssertionError("one outcome comes for each photo")
    read = whole(outcome)
    if isinstance(read, ItemError):
        return _Photo(name, failure=read)
    if isinstance(read.prepared, ItemError):
        return _Photo(name, read.decoded, found=read.prepared)
    return _Photo(name, read.decoded, read.prepared)
