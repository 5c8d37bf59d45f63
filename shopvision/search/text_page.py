"""A page with all pictures of the index as texts score them: the best, the worst, and how many lie where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.database import connect
from shopvision.reports.gallery import MOST_PICTURES, GalleryPicture, GalleryQuery, write_gallery
from shopvision.search.facts import PictureFacts, PictureKey, read_facts
from shopvision.search.filters import ItemFilter
from shopvision.search.notes import item_filter
from shopvision.search.options import SearchOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.index.generation import Generation
    from shopvision.search.visual import VisualSearch

FACTS_AT_ONCE = 5_000


def write_text_page(search: VisualSearch, texts: Sequence[str], output: Path, options: SearchOptions) -> None:
    """Write the page. Of an index with more pictures than a page holds it shows the best and the worst.

    Args:
        search: whose index for texts.
        texts: to compare with.
        output: the HTML file.
        options: what does not fit is not on the page; and what is nearly the same.

    Raises:
        UserError: see ``VisualSearch.by_text``; or the file cannot be written.
    """
    asked = search.text_queries(texts)
    each = max(2, MOST_PICTURES // len(asked.texts))
    one = item_filter(options)
    queries = [
        _query(asked.generation, text, vector, each, one)
        for text, vector in zip(asked.texts, asked.vectors, strict=True)
    ]
    facts = [("in the index", f"{asked.generation.live:,}"), ("model", asked.generation.model)]
    facts.append(("index", asked.generation.path.rpartition("/")[2]))
    write_gallery(output, queries, facts=facts, least=asked.least_score, nearly_same=options.nearly_same)


def _query(generation: Generation, text: str, vector: NDArray[np.float32], most: int, one: ItemFilter) -> GalleryQuery:
    """The nearest half, and the farthest: those are the nearest of the opposite vector."""
    near = generation.search(vector[None], most)[0]
    known = {hit.image_id for hit in near}
    far = [] if len(near) < most else generation.search(-vector[None], most)[0]
    scores = {hit.image_id: hit.score for hit in near}
    scores |= {hit.image_id: -hit.score for hit in far if hit.image_id not in known}
    facts: dict[PictureKey, PictureFacts] = {}
    keys = [(image_id, 0) for image_id in scores]
    with connect() as connection:
        for start in range(0, len(keys), FACTS_AT_ONCE):
            facts |= read_facts(
                connection, keys[start : start + FACTS_AT_ONCE], model=generation.model, detector=None, collapse=None,
                one=one,
            )  # fmt: skip
    shown = [(key, known) for key, known in facts.items() if known.fits and len(known.vector)]
    pictures = [
        GalleryPicture(
            fact.uri, scores[key[0]], fact.title or fact.item_id,
            " · ".join(part for part in (fact.item_id if fact.title else None, fact.category) if part),
        )
        for key, fact in shown
    ]  # fmt: skip
    vectors = np.stack([fact.vector for _, fact in shown]) if shown else None
    return GalleryQuery(text, pictures, vectors, generation.live - len(scores))
