"""What a search is asked for, checked before anything is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from shopvision.errors import UserError
from shopvision.images import Box

# Two photos of one garment on one model are nearer than this only where one is a crop or a copy of the other.
NEARLY_SAME = 0.98


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions:
    """Which items are shown, and in which order.

    Attributes:
        k: how many items.
        collapse: items that share this value count as variants of one style, of which the best is shown: a key of the
            items' records, be it a field, an attribute or one of the shop's own. Items without it stand for themselves.
        nearly_same: of two items whose pictures have vectors with a larger cosine, or equal bytes, the better one is
            shown; 1 keeps all but copies.
        category: a category path; it covers what lies below it.
        by_class: items of categories that belong to the class that was found in the photo.
        brands: one of these, without regard to capitals.
        price_from: at least so much, in whatever currency the item has.
        price_to: at most so much.
        soft: items that fit all of this come first and others fill up; otherwise others never appear.
        colour: how much of the order the colour is, 0 to 1; the rest is the model's similarity.

    Raises:
        UserError: a value that makes no sense.
    """

    k: int = 10
    collapse: str | None = None
    nearly_same: float = NEARLY_SAME
    category: str | None = None
    by_class: bool = False
    brands: tuple[str, ...] = ()
    price_from: Decimal | None = None
    price_to: Decimal | None = None
    soft: bool = True
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"k is {self.k}: ask for at least one item.")
        if not 0 < self.nearly_same <= 1:
            raise UserError(f"Nearly the same is a cosine above 0 and up to 1, not {self.nearly_same}.")
        if not 0 <= self.colour <= 1:
            raise UserError(f"The colour's share of the order is between 0 and 1, not {self.colour}.")
        if self.collapse == "":
            raise UserError("Name the key that variants of a style share, such as style.")
        if any(not brand.strip() for brand in self.brands):
            raise UserError("A brand has no name: leave it out.")
        prices = [price for price in (self.price_from, self.price_to) if price is not None]
        if not all(price.is_finite() and price >= 0 for price in prices) or prices != sorted(prices):
            raise UserError(
                f"Prices from {self.price_from} to {self.price_to}: give numbers from 0 on, the lower one first."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GarmentChoice:
    """Which garments of a photo are searched with; all of them, where nothing is said.

    Attributes:
        number: only this one, as the answer numbers them: 1 is what the detector is surest of.
        label: only those of this class; together with ``box`` it says what is in the box.
        box: (left, top, right, bottom) in pixels of the upright photo at full scale; nothing is detected.

    Raises:
        UserError: a box without area, or a box and a number.
    """

    number: int | None = None
    label: str | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.number is not None and self.number < 1:
            raise UserError(f"Garments are numbered from 1 on: there is no number {self.number}.")
        if self.number is not None and self.box is not None:
            raise UserError("Say which garment by its number or by a box, not by both.")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not all(map(math.isfinite, self.box)) or left >= right or top >= bottom:
                raise UserError(f"The box {self.box} has no area: give its left, top, right and bottom edge in pixels.")


def as_box(text: str) -> Box:
    """``"x,y,w,h"`` -> (left, top, right, bottom).

    Raises:
        UserError: the text is no box.
    """
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"'{text}' is no box: write x,y,w,h in pixels, such as 120,80,300,450.") from None
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        raise UserError(f"The box '{text}' has no area: write x,y,w,h in pixels, such as 120,80,300,450.")
    return left, top, left + width, top + height
