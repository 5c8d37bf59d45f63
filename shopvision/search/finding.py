"""From vectors to items: so many near pictures are looked at as it takes to show enough items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shopvision.database import connect
from shopvision.fashion.composition.found import Lab
from shopvision.fashion.composition.routing import Routes
from shopvision.index.generation import Generation, Hit
from shopvision.search.arranging import Candidate, Shown, arrange
from shopvision.search.facts import PictureFacts, PictureKey, read_facts
from shopvision.search.filters import AllowedPictures, ItemFilter
from shopvision.search.options import SearchOptions
from shopvision.search.results import FoundItem
from shopvision.search.stopwatch import Stopwatch

Vectors = NDArray[np.float32]

# Looked at first for each item wanted, and doubled while too few items are among them.
PICTURES_PER_ITEM = 4
# Where the colour has a say, it may choose among more.
PICTURES_PER_ITEM_BY_COLOUR = 10
# After so many pictures that a filter mostly refuses, its own are listed, however many they are.
MOST_WALKED = 4096
# So many pictures of one query, or so many times those looked at first, are looked through for more styles and for what
# is not nearly the same: a catalogue of a million pictures may have only a handful of styles.
MOST_LOOKED_THROUGH, MOST_TIMES = 8192, 8


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched with.

    Attributes:
        vectors: (n, d) float32; what is near to any of them is found.
        filter: what comes first, or alone.
        colour: CIELAB, where it is to be compared.
        without: an item that is not shown.
    """

    vectors: Vectors
    filter: ItemFilter = field(default_factory=ItemFilter)
    colour: Lab | None = None
    without: str | None = None


@dataclass(frozen=True, slots=True)
class Near:
    """Pictures that one query found; ``is_all``: there are no more."""

    hits: dict[PictureKey, Hit]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds items in one generation.

    Attributes:
        generation: of the index.
        options: what is asked for.
        allowed: which pictures a filter lets through.
        detector: ``name:tag`` of the detector that found the regions of its pictures, if one did.
        routes: which encoders its vectors are of.
        stopwatch: notes what the steps take.
    """

    generation: Generation
    options: SearchOptions
    allowed: AllowedPictures
    detector: str | None
    routes: Routes
    stopwatch: Stopwatch

    def find(self, queries: Sequence[Query]) -> list[tuple[FoundItem, ...]]:
        """The items of each query, the best first; those with one filter are looked for together."""
        found: list[tuple[FoundItem, ...]] = [()] * len(queries)
        for one in dict.fromkeys(query.filter for query in queries):
            places = [place for place, query in enumerate(queries) if query.filter == one]
            for place, items in zip(places, self._find([queries[place] for place in places], one), strict=True):
                found[place] = items
        return found

    def _find(self, queries: Sequence[Query], one: ItemFilter) -> list[tuple[FoundItem, ...]]:
        found: list[tuple[FoundItem, ...]] = [()] * len(queries)
        facts: dict[PictureKey, PictureFacts] = {}
        pending = list(range(len(queries)))
        per_item = PICTURES_PER_ITEM_BY_COLOUR if self.options.colour else PICTURES_PER_ITEM
        wanted = per_item * self.options.k
        most = max(MOST_LOOKED_THROUGH, MOST_TIMES * wanted)
        while pending:
            asked = [queries[place] for place in pending]
            inside = self._inside(asked, one, wanted)
            everywhere = self._near(asked, wanted) if inside is None or self.options.soft else None
            nears = [near for near in (inside, everywhere) if near is not None]
            self._learn(facts, nears, one)
            still = []
            for number, place in enumerate(pending):
                hits = {key: hit for near in reversed(nears) for key, hit in near[number].hits.items()}
                found[place], fitting = self._items(queries[place], hits, facts)
                is_all = all(near[number].is_all for near in nears)
                no_more_fit = nears[0][number].is_all
                enough = fitting >= self.options.k or (no_more_fit and len(found[place]) >= self.options.k)
                if not enough and not is_all:
                    still.append(place)
            pending, wanted = still if wanted < most else [], 2 * wanted
        return found

    def _inside(self, queries: Sequence[Query], one: ItemFilter, wanted: int) -> list[Near] | None:
        """What fits, found among nothing else; None where that is no use, and what is near is looked through."""
        if one.is_empty:
            return None
        if one.is_category_alone:
            return self._near(queries, wanted, category=one.category)
        with self.stopwatch.step("filter"):
            pictures = self.allowed.of(one)
            if pictures is None and wanted > MOST_WALKED:
                pictures = self.allowed.of(one, any_number=True)
        return None if pictures is None else self._near(queries, wanted, pictures=pictures)

    def _near(
        self,
        queries: Sequence[Query],
        wanted: int,
        *,
        category: str | None = None,
        pictures: NDArray[np.int64] | None = None,
    ) -> list[Near]:
        with self.stopwatch.step("index"):
            vectors = np.concatenate([query.vectors for query in queries])
            answers = iter(self.generation.search(vectors, wanted, category, soft=False, pictures=pictures))
        nears = []
        for query in queries:
            best: dict[PictureKey, Hit] = {}
            is_all = True
            for hits in (next(answers) for _ in query.vectors):
                is_all &= len(hits) < wanted
                for hit in hits:
                    key = hit.image_id, hit.region
                    if key not in best or best[key].score < hit.score:
                        best[key] = hit
            nears.append(Near(best, is_all))
        return nears

    def _learn(self, facts: dict[PictureKey, PictureFacts], nears: Sequence[list[Near]], one: ItemFilter) -> None:
        new = {key for near in nears for one_query in near for key in one_query.hits} - facts.keys()
        if new:
            with self.stopwatch.step("facts"), connect() as connection:
                facts |= read_facts(
                    connection, new, model=self.generation.model, detector=self.detector,
                    collapse=self.options.collapse, one=one,
                )  # fmt: skip

    def _items(
        self, query: Query, hits: dict[PictureKey, Hit], facts: dict[PictureKey, PictureFacts]
    ) -> tuple[tuple[FoundItem, ...], int]:
        """The items to show, and how many of them fit."""
        keys = [key for key in hits if key in facts and facts[key].item_id != query.without]
        scores = np.array([hits[key].score for key in keys], np.float32)
        similar = zip(self.routes.similarity(scores).tolist(), self.routes.within(scores).tolist(), strict=True)
        candidates = [
            _candidate(key, facts[key], one_similar, query)
            for key, one_similar in zip(keys, similar, strict=True)
            if facts[key].fits or self.options.soft
        ]
        shown = arrange(
            candidates, self.options.k, colour=self.options.colour, nearly_same=self.options.nearly_same,
            routes=self.routes,
        )  # fmt: skip
        items = tuple(_item(one, facts[one.candidate.key]) for one in shown)
        return items, sum(item.fits for item in items)


def _candidate(key: PictureKey, facts: PictureFacts, similar: tuple[float, bool], query: Query) -> Candidate:
    """``similar``: cosine, and whether it means something."""
    difference = None
    if query.colour is not None and facts.colour is not None:
        difference = float(np.linalg.norm(np.subtract(query.colour, facts.colour)))
    return Candidate(
        key=key,
        item_id=facts.item_id,
        style=f"item {facts.item_id}" if facts.style is None else f"style {facts.style}",
        similarity=similar[0],
        is_comparable=similar[1],
        fits=facts.fits,
        colour_difference=difference,
        content=None if facts.sha256 is None else (facts.sha256, key[1]),
        vector=facts.vector if len(facts.vector) else np.zeros(query.vectors.shape[1], np.float32),
    )


def _item(one: Shown, facts: PictureFacts) -> FoundItem:
    candidate = one.candidate
    return FoundItem(
        facts.item_id, facts.title, facts.brand, facts.category, facts.price, facts.currency, *candidate.key, facts.uri,
        candidate.similarity, facts.style, facts.fits, candidate.colour_difference, tuple(one.variants),
        candidate.is_comparable,
    )  # fmt: skip
