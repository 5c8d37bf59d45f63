"""What blocking looks for, and the pairs it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from shopvision.errors import UserError

Source = Literal["code", "attribute", "words", "text_vector", "picture", "same_picture"]
SOURCES: tuple[Source, ...] = get_args(Source)
TEXT_SOURCES: tuple[Source, ...] = ("code", "attribute", "words")
Within = Literal["category", "root_category", "any"]


@dataclass(frozen=True)
class BlockingOptions:
    """How candidates are found.

    Attributes:
        max_per_item: how many partners one item looks up at most; the strongest stay. Others may still find it, so
            there are at most ``max_per_item`` pairs for each due item, whatever the size of the catalogue.
        sources: what may bring two items together: a model ``code``, a rare ``attribute`` value, rare ``words`` of the
            title, ``text_vector`` and ``picture`` that are near, the ``same_picture`` (equal bytes, or nearly so).
        neighbours: of one item by words, by its text vector, and by its pictures.
        min_similarity: of such a neighbour, by cosine; less alike is not worth scoring.
        same_picture_similarity: from which cosine of the catalogue encoder on two pictures count as copies. On shop
            photos EfficientNet-Lite0 puts nearly all copies above it that were compressed again, halved in size or cut
            by 3 % at each side, and no other article; what was cut more is still among the nearest.
        rare_value_limit: a value or a picture that more items share is no evidence.
        within: items are compared where one's category path begins with the other's (``category``), where both have the
            same first part (``root_category``), or always. An item without a category is compared with any.
    """

    max_per_item: int = 50
    sources: tuple[Source, ...] = SOURCES
    neighbours: int = 20
    min_similarity: float = 0.1
    same_picture_similarity: float = 0.95
    rare_value_limit: int = 50
    within: Within = "root_category"

    def __post_init__(self) -> None:
        for name, least in (("max_per_item", 1), ("neighbours", 1), ("rare_value_limit", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}: blocking needs at least {least}.")
        for name in ("min_similarity", "same_picture_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: a similarity is from 0 to 1.")
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown or not self.sources:
            raise UserError(f"Blocking sources {list(self.sources)}: give some of {', '.join(SOURCES)}.")
        if self.within not in get_args(Within):
            raise UserError(f"within is {self.within!r}: use one of {', '.join(get_args(Within))}.")


@dataclass(frozen=True, slots=True)
class CandidatePair:
    """Two items that may be the same product.

    Attributes:
        left: the id that comes first in code point order.
        right: the other one.
        sources: what brought them together, in the order of ``SOURCES``.
        similarity: the greatest one that a source saw, 0 to 1.
    """

    left: str
    right: str
    sources: tuple[Source, ...]
    similarity: float
