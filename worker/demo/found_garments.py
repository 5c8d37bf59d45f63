"""The page of the fashion demo: photos that nobody learnt from, and what of the catalogue looks like their garments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from worker.demo.guide import NEIGHBOURS, SHOWN

if TYPE_CHECKING:
    from shopvision.fashion.detection.config import DetectorConfig
    from shopvision.search.page import SearchPage
    from worker.demo.guide import Guide

PAGE_PHOTOS = 24
PAGE_ITEMS = 6


def held_back(config: DetectorConfig) -> list[str]:
    """Photos that the detector is not trained on.

    Raises:
        UserError: there are too few.
    """
    from shopvision.fashion.detection.train import read_splits

    _, valid = read_splits(config)
    return [unquote(urlsplit(picture.uri).path) for picture in valid.pictures][:PAGE_PHOTOS]


def show_garments(guide: Guide, photos: list[str], page: SearchPage) -> None:
    """Search with the garments of each photo, write the page, and show some of it."""
    from shopvision.search import PhotoFailure, SearchOptions, VisualSearch

    options = SearchOptions(k=PAGE_ITEMS, collapse="style")
    outcomes = list(VisualSearch().by_photos(photos, options, on_photo=page.add))
    page.write([one for one in outcomes if isinstance(one, PhotoFailure)])
    results = [one for one in outcomes if not isinstance(one, PhotoFailure)]
    found = [(Path(one.photo).name, garment) for one in results for garment in one.garments]
    shown = [
        (
            f"{name}: {garment.label or 'the whole photo'}",
            ", ".join(f"{item.title or item.item_id} {item.score:.2f}" for item in garment.items[:NEIGHBOURS]),
        )
        for name, garment in found[:: max(1, len(found) // SHOWN)][:SHOWN]
    ]
    guide.show(("garment", "looks most like"), shown)
