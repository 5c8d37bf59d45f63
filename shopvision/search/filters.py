"""Which items and pictures a filter lets through, as Postgres says at the moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, false, func, not_, or_, select, true

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect

Ids = NDArray[np.int64]

# Comparing a query with so many pictures costs a millisecond or two; of more, the nearest ones are looked through.
NARROW = 20_000
# An answer is used again for so long. What is shown is checked each time; an item that fits since then comes later.
KEPT_SECONDS = 60.0
KEPT_FILTERS = 64


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """What items must be.

    Attributes:
        category: a category path; it covers what lies below it.
        brands: one of these, without regard to capitals.
        price_from: at least so much.
        price_to: at most so much.
        label: of a category that belongs to this class.
        classes: (category path, class), where ``label`` is given; a longer path overrides a shorter one.
    """

    category: str | None = None
    brands: tuple[str, ...] = ()
    price_from: Decimal | None = None
    price_to: Decimal | None = None
    label: str | None = None
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether everything fits."""
        return self == ItemFilter()

    @property
    def is_category_alone(self) -> bool:
        """Whether the index itself knows what fits."""
        return self.category is not None and self == ItemFilter(category=self.category)

    def __str__(self) -> str:
        parts = [f"category {self.category}"] if self.category else []
        parts += [f"class {self.label}"] if self.label else []
        parts += [f"brand {' or '.join(self.brands)}"] if self.brands else []
        parts += [f"price from {self.price_from}"] if self.price_from is not None else []
        parts += [f"price up to {self.price_to}"] if self.price_to is not None else []
        return ", ".join(parts)

    def condition(self) -> ColumnElement[bool]:
        """The same over ``items``: true, or else false or null, for nothing around it would let an index be used."""
        wanted = []
        if self.category is not None:
            wanted.append(_below(self.category.strip("/")))
        if self.label is not None:
            wanted.append(_of_class(dict(self.classes), self.label))
        if self.brands:
            wanted.append(or_(*(func.lower(Item.brand) == func.lower(brand.strip()) for brand in self.brands)))
        if self.price_from is not None:
            wanted.append(Item.price >= self.price_from)
        if self.price_to is not None:
            wanted.append(Item.price <= self.price_to)
        return and_(true(), *wanted)


def _below(path: str) -> ColumnElement[bool]:
    return or_(Item.category == path, Item.category.startswith(f"{path}/", autoescape=True))


def _of_class(classes: Mapping[str, str], label: str) -> ColumnElement[bool]:
    """A path of this class covers a category, and no longer one of another class does."""
    mine = []
    for path, name in classes.items():
        if name == label:
            others = [longer for longer, other in classes.items() if other != label and longer.startswith(f"{path}/")]
            mine.append(and_(_below(path), not_(or_(false(), *map(_below, others)))))
    return or_(false(), *mine)


class AllowedPictures:
    """The pictures that filters let through, kept for a minute. Safe for threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ItemFilter, bool], tuple[float, Ids | None]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, one: ItemFilter, *, any_number: bool = False) -> Ids | None:
        """Their ids, rising.

        Args:
            one: the filter.
            any_number: also where they are many.

        Returns:
            None where there are more than ``NARROW``, unless any number will do.
        """
        key, now = (one, any_number), time.monotonic()
        with self._lock:
            until, ids = self._kept.get(key, (0.0, None))
            if until > now:
                return ids
        found = _allowed(one, None if any_number else NARROW)
        with self._lock:
            self._kept[key] = time.monotonic() + KEPT_SECONDS, found
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT_FILTERS:
                self._kept.popitem(last=False)
        return found


def _allowed(one: ItemFilter, most: int | None) -> Ids | None:
    query = select(ItemImage.image_id).join(Item, Item.item_id == ItemImage.item_id).where(one.condition())
    with connect() as connection:
        ids = connection.scalars(query if most is None else query.limit(most + 1)).all()
    if most is not None and len(ids) > most:
        return None
    found = np.sort(np.array(ids, np.int64))
    found.flags.writeable = False  # so that the index remembers what it means
    return found
