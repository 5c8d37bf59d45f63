"""From pictures that are near to items that are alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from shopvision import models
from shopvision.errors import UserError
from shopvision.images.given import OwnFilesDoor
from shopvision.index.generation import Generation, Hit
from shopvision.index.opening import open_index
from shopvision.index.reader import IndexReader
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing

PICTURES_PER_ITEM = 4  # fetched for each item wanted, and doubled while too few items are among them


class Encoder(Protocol):
    """The part of an ``ImageEncoder`` that a query needs."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become its input."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, height, width, 3) pictures to (n, dimension) unit vectors."""


@dataclass(frozen=True)
class FoundItem:
    """One item, with the picture of it, or the region of a picture, that is nearest to the query.

    Attributes:
        region: which of the picture's regions it is; 0 for the whole.
        score: its cosine similarity.
        in_category: whether it lies in the category asked for; true where none was.
    """

    item_id: str
    image_id: int
    region: int
    uri: str
    category: str | None
    score: float
    in_category: bool


@dataclass(frozen=True)
class SearchResult:
    """The answer of one generation: which, made with which model (``name:tag``), and its items, best first."""

    generation: str
    model: str
    items: list[FoundItem]


class CatalogueSearch:
    """Searches one index, encoding queries with the model that its generation was made with."""

    def __init__(self, reader: IndexReader, encoder_of: Callable[[str], Encoder]) -> None:
        """``encoder_of`` gives the encoder of a model version ``name:tag``; it is asked for each query."""
        self._reader = reader
        self._encoder_of = encoder_of

    def by_image(
        self, picture: bytes | str | Path, k: int = 10, category: str | None = None, *, soft: bool = True
    ) -> SearchResult:
        """Items that look like ``picture``.

        Args:
            picture: an encoded picture, a path, or an address (``https://``, ``s3://``, ``file://``: the rules of the
                picture door apply).
            k: how many items.
            category: a category path; it covers what lies below it.
            soft: items in the category come first and others fill up; otherwise others never appear.

        Raises:
            ItemError: it cannot be read, is no picture, or a broken one.
            UserError: nothing published, ``k`` below 1.
        """
        from shopvision.images.preprocessing import prepare

        data = picture if isinstance(picture, bytes) else _read(picture)
        generation = self._reader.generation()
        encoder = self._encoder_of(generation.model)
        pixels = prepare(data, encoder.preprocessing)
        return _answer(generation, encoder.encode(pixels[np.newaxis]), k, category, soft=soft)

    def by_item(self, item_id: str, k: int = 10, category: str | None = None, *, soft: bool = True) -> SearchResult:
        """Other items that look like any picture of ``item_id``.

        Raises:
            UserError: the index has no picture of this item, nothing published, ``k`` below 1.
        """
        generation = self._reader.generation()
        vectors = generation.vectors_of(item_id)
        if len(vectors) == 0:
            raise UserError(
                f"Item {item_id!r} has no picture in the index: check the id, give the item a picture, or refresh its "
                "embeddings."
            )
        return _answer(generation, vectors, k, category, soft=soft, without=item_id)


def _answer(
    generation: Generation,
    vectors: NDArray[np.float32],
    k: int,
    category: str | None,
    *,
    soft: bool,
    without: str | None = None,
) -> SearchResult:
    pictures = k * PICTURES_PER_ITEM
    while True:
        hits = [hit for found in generation.search(vectors, pictures, category, soft=soft) for hit in found]
        best: dict[str, Hit] = {}
        for hit in sorted(hits, key=lambda hit: (not hit.in_category, -hit.score)):
            if hit.item_id != without:
                best.setdefault(hit.item_id, hit)
        if len(best) >= k or pictures >= generation.live:
            items = [FoundItem(**vars(hit)) for hit in list(best.values())[:k]]
            return SearchResult(generation.path, generation.model, items)
        pictures *= 2


def _read(picture: str | Path) -> bytes:
    with OwnFilesDoor(get_settings()) as door:
        return door.fetch(str(picture)).data


def _search() -> CatalogueSearch:
    return CatalogueSearch(open_index(), models.load)


def search_image(
    picture: bytes | str | Path, k: int = 10, category: str | None = None, *, soft: bool = True
) -> SearchResult:
    """``CatalogueSearch.by_image`` on the index of the settings, as it is now."""
    return _search().by_image(picture, k, category, soft=soft)


def search_item(item_id: str, k: int = 10, category: str | None = None, *, soft: bool = True) -> SearchResult:
    """``CatalogueSearch.by_item`` on the index of the settings, as it is now."""
    return _search().by_item(item_id, k, category, soft=soft)
