"""Searching a shop's indexes by photo, by item and by text, for services and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from shopvision import models
from shopvision.errors import ItemError, UserError
from shopvision.fashion.composition.indexed import routes_of
from shopvision.index.names import RECALL_ROLE, index_name
from shopvision.index.opening import open_index
from shopvision.index.reader import IndexReader
from shopvision.search.filters import AllowedPictures
from shopvision.search.finding import Finder, Query
from shopvision.search.notes import item_filter, item_notes, score_notes
from shopvision.search.options import GarmentChoice, SearchOptions
from shopvision.search.photo_batch import OnPhoto, PhotoBatch
from shopvision.search.photos import PHOTOS_AT_ONCE, Photo, reading
from shopvision.search.query_models import query_models
from shopvision.search.results import ItemResult, PhotoFailure, PhotoOutcome, PhotoResult, TextResult
from shopvision.search.stopwatch import Stopwatch
from shopvision.search.texts import TextQueries, text_queries


class VisualSearch:
    """Searches by photo, by item and by text. Safe for threads; keep one for as long as you search.

    Each answer belongs to one generation of the index, the current one when the question came, and is made with its
    model. Models stay loaded, as ``load_model`` does it.
    """

    def __init__(
        self,
        index: IndexReader | None = None,
        load: Callable[[str], Any] | None = None,
        text_index: IndexReader | None = None,
    ) -> None:
        """Nothing is opened or loaded yet.

        Args:
            index: of what looks alike; by default that of the settings.
            load: gives the model of a version ``name:tag``; by default ``shopvision.load_model``.
            text_index: of what texts are compared with; by default that of the settings.
        """
        self._index = index or open_index()
        self._text_index = text_index or open_index(index_name(RECALL_ROLE))
        self._load = load or models.load
        self._allowed = AllowedPictures()

    def by_photo(
        self, photo: Photo, options: SearchOptions | None = None, choice: GarmentChoice | None = None
    ) -> PhotoResult:
        """Items that look like the garments in a photo.

        Args:
            photo: an encoded picture, a path, or an address.
            options: which items, in which order.
            choice: which garments.

        Raises:
            ItemError: it cannot be read, is no picture, has no such garment, or the model cannot place it.
            UserError: nothing published, a class that the detector does not know.
        """
        (outcome,) = self.by_photos([photo], options, choice)
        if isinstance(outcome, PhotoFailure):
            raise ItemError(outcome.code, outcome.message)
        return outcome

    def by_photos(
        self,
        photos: Sequence[Photo],
        options: SearchOptions | None = None,
        choice: GarmentChoice | None = None,
        *,
        on_photo: OnPhoto | None = None,
    ) -> Iterator[PhotoOutcome]:
        """``by_photo`` for many, in their order; they go through the models together.

        Args:
            photos: see ``by_photo``.
            options: likewise.
            choice: likewise.
            on_photo: gets each answer with the photo's pixels, to show them.

        Raises:
            UserError: see ``by_photo``.
            TransientError: a source of photos is away for the moment.
        """
        options, choice = options or SearchOptions(), choice or GarmentChoice()
        generation = self._index.generation()
        made = query_models(generation.model, self._load)
        if choice.label is not None:
            made.require_label(choice.label)
        batch = PhotoBatch(generation, made, options, choice, self._allowed)
        prepare = made.detector.prepare if made.detector is not None and choice.box is None else None
        with reading(photos, made.target, prepare) as outcomes:
            names = iter(photos)
            while some := list(islice(names, PHOTOS_AT_ONCE)):
                yield from batch.answer(outcomes, some, on_photo)

    def by_item(self, item_id: str, options: SearchOptions | None = None) -> ItemResult:
        """Other items that look like any picture of an item.

        Args:
            item_id: the item.
            options: which items, in which order; there is no photo whose class or colour could count.

        Raises:
            UserError: the index has no picture of this item, or nothing is published.
        """
        options = options or SearchOptions()
        generation = self._index.generation()
        vectors = generation.vectors_of(item_id)
        if len(vectors) == 0:
            raise UserError(
                f"Item {item_id!r} has no picture in the index: check the id, give the item a picture, or refresh its "
                "embeddings."
            )
        if options.by_class or options.colour:
            raise UserError("An item has no photographed class or colour: they count in a search by photo.")
        one = item_filter(options)
        finder = Finder(generation, options, self._allowed, None, routes_of(generation.model), Stopwatch())
        (items,) = finder.find([Query(vectors, one, without=item_id)])
        return ItemResult(item_id, items, item_notes(items, one, options), generation.path, generation.model)

    def by_text(self, texts: Sequence[str], options: SearchOptions | None = None) -> list[TextResult]:
        """Items whose pictures show what texts say, in whatever language the model reads.

        Args:
            texts: some, which go through the model together.
            options: which items, in which order; there is no photo whose class or colour could count.

        Raises:
            UserError: a text is empty, no model reads texts, or no picture was embedded for them yet.
        """
        options = options or SearchOptions()
        if options.by_class or options.colour:
            raise UserError("A text has no photographed class or colour: they count in a search by photo.")
        asked = self.text_queries(texts)
        generation, one, stopwatch = asked.generation, item_filter(options), Stopwatch()
        finder = Finder(generation, options, self._allowed, None, routes_of(generation.model), stopwatch)
        found = finder.find([Query(vector[None], one) for vector in asked.vectors])
        seconds = {"embed": round(asked.seconds, 4)} | {
            name: round(value, 4) for name, value in stopwatch.seconds.items()
        }
        return [
            TextResult(
                text, items,
                (*notes, *item_notes(items, one, options), *score_notes(generation, items, asked.least_score)),
                generation.path, generation.model, asked.least_score, seconds,
            )
            for text, items, notes in zip(asked.texts, found, asked.notes, strict=True)
        ]  # fmt: skip

    def text_queries(self, texts: Sequence[str]) -> TextQueries:
        """Vectors of texts for the generation that serves now; see ``by_text``."""
        return text_queries(self._text_index, self._load, texts)
