"""Which of two pictures of one item was clicked more, however a source tells it; every record is accounted for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.items.pair_splits import deal_groups
from shopvision.selection.click.entities import EntityKey

Rows = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClickItem:
    """An item whose pictures people were shown.

    Attributes:
        item_id: tells it from the others.
        entities: that it belongs to, in the order of the source.
    """

    item_id: str
    title: str = ""
    category: str = ""
    entities: tuple[EntityKey, ...] = ()


@dataclass(frozen=True, eq=False)
class Comparisons:
    """n pairs of pictures of one item each, no pair twice and none of them a tie.

    Attributes:
        items: (n,) int32 rows of ``ClickData.items``.
        first: (n,) int32 rows of ``ClickData.pictures``.
        second: (n,) likewise.
        first_wins: (n,) bool, whether the first has the higher click rate.
        clicks: (n, 2) float64 of the first and of the second; NaN where nobody counted.
        views: (n, 2) float64, how often each was shown; NaN where nobody counted.
        p_values: (n,) float64, how likely so large a difference is by luck alone; NaN where nobody counted.
    """

    items: Rows
    first: Rows
    second: Rows
    first_wins: NDArray[np.bool_]
    clicks: Floats
    views: Floats
    p_values: Floats

    def __len__(self) -> int:
        return len(self.items)

    @property
    def impressions(self) -> Floats:
        """(n,) of both together; NaN where nobody counted."""
        total: Floats = self.views.sum(axis=1)
        return total

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Comparisons:
        """Some of the pairs."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})

    def swapped(self) -> Comparisons:
        """The same pairs, seen from the other side."""
        return replace(
            self, first=self.second, second=self.first, first_wins=~self.first_wins, clicks=self.clicks[:, ::-1],
            views=self.views[:, ::-1],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shown:
    """How often the pictures of items were clicked; m rows, sorted by item.

    Attributes:
        items: (m,) int32.
        pictures: (m,) int32.
        rates: (m,) float64: clicks per impression; where only the winners of pairs are known, the share it won.
    """

    items: Rows
    pictures: Rows
    rates: Floats

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: NDArray[np.bool_]) -> Shown:
        """Some of the rows."""
        return Shown(self.items[rows], self.pictures[rows], self.rates[rows])

    def by_item(self) -> list[NDArray[np.int64]]:
        """For each item the places of its rows; items with fewer than two pictures are left out."""
        edges = np.flatnonzero(np.diff(self.items)) + 1
        return [rows for rows in np.split(np.arange(len(self)), edges) if len(rows) > 1]


@dataclass(frozen=True, eq=False)
class ClickData:
    """What a source tells about pictures and clicks.

    Attributes:
        items: no two alike.
        pictures: addresses, no two alike.
        comparisons: whom of two pictures people clicked more.
        shown: the rates behind.
        left_out: reason -> how many pairs say nothing for this reason: ``tie``, ``too few impressions``, ...
        failures: records that cannot be used, one by one.
    """

    items: tuple[ClickItem, ...]
    pictures: tuple[str, ...]
    comparisons: Comparisons
    shown: Shown
    left_out: Mapping[str, int]
    failures: tuple[ItemError, ...] = ()

    def select(self, comparisons: NDArray[np.bool_], shown: NDArray[np.bool_]) -> ClickData:
        """Some of the pairs and some of the rates; items and pictures keep their rows."""
        return replace(self, comparisons=self.comparisons.select(comparisons), shown=self.shown.select(shown))

    def without_pictures(self, gone: NDArray[np.bool_]) -> ClickData:
        """The data without these pictures, (pictures,), and without the pairs that they were in."""
        pairs = self.comparisons
        return self.select(~(gone[pairs.first] | gone[pairs.second]), ~gone[self.shown.pictures])

    def used_pictures(self) -> NDArray[np.int64]:
        """Rows of the pictures that are in some pair or have a rate, ascending."""
        pairs = self.comparisons
        return np.unique(np.concatenate([pairs.first, pairs.second, self.shown.pictures])).astype(np.int64)

    def used_items(self) -> NDArray[np.int64]:
        """Rows of the items that have a pair or a rate, ascending."""
        return np.unique(np.concatenate([self.comparisons.items, self.shown.items])).astype(np.int64)

    def majority(self) -> float:
        """Share of the pairs that the answer "always the first" (or "always the second") gets right, the better one."""
        first = float(self.comparisons.first_wins.mean()) if len(self.comparisons) else 0.5
        return max(first, 1 - first)

    def fingerprint(self) -> str:
        """sha256, in hex, of the pairs and rates with the texts and addresses that they are about."""
        digest = hashlib.sha256()
        for row in self.used_items().tolist():
            digest.update(json.dumps([row, *astuple(self.items[row])], ensure_ascii=False).encode(errors="replace"))
        for row in self.used_pictures().tolist():
            digest.update(json.dumps([row, self.pictures[row]], ensure_ascii=False).encode(errors="replace"))
        for part in (self.comparisons, self.shown):
            for values in vars(part).values():
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def split_by_item(data: ClickData, fractions: Mapping[str, float], seed: int) -> dict[str, ClickData]:
    """Parts that share no item: those seen in training say nothing of how others are ranked.

    Args:
        data: the pairs.
        fractions: name of a part -> its share of the pairs, all together 1.
        seed: of the order in which items of one size are dealt out.

    Raises:
        UserError: see ``deal_groups``.
    """
    pairs = data.comparisons
    items, groups = np.unique(pairs.items, return_inverse=True)
    part_of = np.full(len(data.items), -1)
    part_of[items] = deal_groups(groups.astype(np.int64), pairs.first_wins, fractions, seed)
    return {
        name: data.select(part_of[pairs.items] == number, part_of[data.shown.items] == number)
        for number, name in enumerate(fractions)
    }


def pictures_on_both_sides(one: ClickData, other: ClickData) -> int:
    """How many pictures two parts share, as items do that are shown alike."""
    return len(np.intersect1d(one.used_pictures(), other.used_pictures()))


def as_rows(values: Sequence[int]) -> Rows:
    """Row numbers as an array."""
    return np.asarray(values, np.int32)
