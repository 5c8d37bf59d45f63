"""Products listed a second time: duplicates whose answer is known, to show what a matcher finds, and to learn from.

The same thing often comes to a shop twice, from another seller: words moved or left out, another order of attributes,
a picture cut and saved once more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import exists, select

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.catalogue.tables import ItemImage
from shopvision.database import snapshot

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.items.item import Item
    from shopvision.matching.fitting.config import MatcherConfig

SUFFIX = "-relisted"
EVERY = 3  # one item in three is listed again; the others are there to learn from
MOST_RELISTED = 40
MOST_LEARNT = 120
FEWEST_LEARNT = 8
LISTINGS = 4  # of each item that is learnt from
# Of each item that is validated on: thresholds are promises, which fewer pairs would not support.
VALID_LISTINGS = 12
OTHERS = 3  # different items beside each of them
VALID_EVERY = 4
SEED = 11
KEPT_OF_PICTURE = (0.75, 0.95)  # share of each side
TARGET = (800, 800)  # pixels
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Catalogue:
    """Items to list again, and others to learn from."""

    relisted: tuple[Item, ...]
    learnt: tuple[Item, ...]


def choose_items() -> Catalogue:
    """Items with a title and a picture, former relistings left out."""
    from shopvision.items.catalogue_items import items_from_catalogue

    wanted = (
        select(ItemRow.item_id)
        .where(ItemRow.title.is_not(None), exists().where(ItemImage.item_id == ItemRow.item_id))
        .where(~ItemRow.item_id.endswith(SUFFIX, autoescape=True))
        .order_by(ItemRow.item_id)
        .limit(MOST_LEARNT + MOST_RELISTED)
    )
    with snapshot() as connection:
        items = tuple(items_from_catalogue(connection, connection.scalars(wanted).all()).values())
    relisted = items[::EVERY][:MOST_RELISTED]
    return Catalogue(relisted, tuple(item for item in items if item not in relisted)[:MOST_LEARNT])


def relist(items: Sequence[Item], door: PictureDoor, folder: Path) -> Iterator[dict[str, Any]]:
    """Catalogue records of the same products under other titles, with cut pictures put into ``folder``."""
    from shopvision.errors import ItemError

    rng = np.random.default_rng(SEED)
    for number, item in enumerate(items):
        picture = folder / f"{number}.jpg"
        try:
            _cut_picture(door, item.picture, picture, rng)
        except ItemError:
            continue
        listing = other_listing(item, rng)
        pairs = [{"key": key, "value": value} for key, value in listing["attributes"]]
        yield {
            **listing,
            "item_id": item.item_id + SUFFIX,
            "category": item.category or None,
            "attributes": pairs,
            "images": [{"file": picture.name}],
        }


def other_listing(item: Item, rng: np.random.Generator) -> dict[str, Any]:
    """Title, brand, price and attributes of the same product as another seller might write them."""
    words = _words(item.title)
    if len(words) > 3 and rng.random() < 0.5:
        del words[int(rng.integers(len(words)))]
    if len(words) > 1:
        turn = int(rng.integers(1, len(words)))
        words = words[turn:] + words[:turn]
    blank = " " if _BLANKS.search(item.title) else ""
    title = blank.join(words)
    ending = item.category.rpartition("/")[2]
    if ending and rng.random() < 0.5:
        title = f"{title} ({ending})"
    if rng.random() < 0.3:
        title = title.upper()
    attributes = [(key, value) for key, values in item.attributes.items() for value in values]
    kept = [attributes[place] for place in rng.permutation(len(attributes)) if rng.random() < 0.7]
    price = item.price
    if price.replace(".", "", 1).isdigit():
        price = f"{float(price) * rng.uniform(0.9, 1.1):.2f}"
    return {
        "title": title,
        "brand": item.brand if rng.random() < 0.7 else "",
        "price": price,
        "attributes": kept,
    }


def _words(title: str) -> list[str]:
    """Words of a title; Chinese has no blanks between them."""
    if _BLANKS.search(title):
        return title.split()
    from rjieba import cut

    return list(cut(title))


def _cut_picture(door: PictureDoor, uri: str, path: Path, rng: np.random.Generator) -> None:
    from shopvision.images.decoding import decode

    picture = decode(door.fetch(uri).data, target=TARGET)
    width, height = (round(side * rng.uniform(*KEPT_OF_PICTURE)) for side in picture.size)
    left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip(picture.size, (width, height), strict=True))
    picture.crop((left, top, left + width, top + height)).save(path, quality=80)


def write_pairs(items: Sequence[Item], folder: Path) -> tuple[Path, Path]:
    """Files of labelled pairs to learn from and to validate on, of different items."""
    rng = np.random.default_rng(SEED + 1)
    valid = [item for number, item in enumerate(items) if number % VALID_EVERY == 0]
    train = [item for number, item in enumerate(items) if number % VALID_EVERY]
    paths = folder / "pairs.jsonl", folder / "valid.jsonl"
    for path, part, listings in zip(paths, (train, valid), (LISTINGS, VALID_LISTINGS), strict=True):
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in _labelled(part, listings, rng))
    return paths


def _labelled(items: Sequence[Item], listings: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for item in items:
        near = [other for other in items if other is not item and other.category == item.category]
        others = near if len(near) >= OTHERS else [other for other in items if other is not item]
        for _ in range(listings):
            listing = _side(other_listing(item, rng))
            yield {"left": _side(_as_listed(item)), "right": listing, "label": 1}
            for place in rng.permutation(len(others))[:OTHERS]:
                yield {"left": _side(_as_listed(others[place])), "right": listing, "label": 0}


def _as_listed(item: Item) -> dict[str, Any]:
    attributes = [(key, value) for key, values in item.attributes.items() for value in values]
    return {
        "title": item.title,
        "brand": item.brand,
        "price": item.price,
        "description": item.description,
        "attributes": attributes,
    }


def _side(listing: dict[str, Any]) -> dict[str, Any]:
    return {**listing, "attributes": [{"key": key, "value": value} for key, value in listing["attributes"]]}


def matcher_config(pairs: Path, valid: Path, *, asian: bool) -> MatcherConfig:
    """A sentence encoder as two towers: it knows what is similar, and learns in seconds what is the same here."""
    from shopvision.matching.fitting.config import MatcherConfig

    return MatcherConfig.model_validate(
        {
            "data": {"pairs": pairs, "valid": valid},
            "text": {"max_length": 64, "prefix": "query:" if asian else ""},
            "model": {
                "name": "demo-matcher",
                "family": "text_two_tower",
                "text": "wheel:e5-small" if asian else "wheel:minilm",
            },
            "train": {"epochs": 4},
            # Cross-fitting would take twice as long again as the rest of the demo.
            "thresholds": {"precision": 0.9, "cross_fit": 0},
        }
    )
