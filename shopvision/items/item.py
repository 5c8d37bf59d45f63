"""An item as every model reads it, and the one way to name two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shopvision.errors import ItemError

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom, in shares of a picture."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item in words, with its leading picture. Every text may be empty.

    Attributes:
        category: name or path; statistics, and seen and unseen categories, go by it.
        price: as written, a number or not.
        attributes: key -> its distinct values, sorted. Keys are in the order they were first seen; properties of the
            item and of its variants are merged.
        picture: address (file:///, s3://, https://); empty where there is none.
        industry: the trade the item belongs to, where a source tells it.
        category_path: names from the coarsest category to the finest, where a source tells them beside the category.
        source: where the item comes from: a seller, a supplier, a feed. No model reads it.
        regions: parts of the picture that a detector found, the strongest first.
    """

    item_id: str
    title: str = ""
    category: str = ""
    brand: str = ""
    price: str = ""
    description: str = ""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    picture: str = ""
    industry: str = ""
    category_path: str = ""
    source: str = ""
    regions: tuple[Box, ...] = ()

    def content_hash(self) -> bytes:
        """sha256 over all that can enter a model's input, id and source apart: equal means unchanged."""
        texts = [self.title, self.category, self.brand, self.price, self.description, self.picture, self.industry]
        content: list[object] = [*texts, self.category_path, list(self.attributes.items())]
        content += [self.regions] if self.regions else []
        encoded = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # A lone surrogate, which a careless program can make, must not end a whole job.
        return hashlib.sha256(encoded.encode(errors="surrogatepass")).digest()


def pair_key(a: str, b: str) -> tuple[str, str]:
    """Both ids in code point order, which Postgres calls ``COLLATE "C"``.

    Raises:
        ItemError: ``same_item``, the two are one.
    """
    if a == b:
        raise ItemError("same_item", f"item {a[:80]!r} is paired with itself; name two items")
    return (a, b) if a < b else (b, a)
