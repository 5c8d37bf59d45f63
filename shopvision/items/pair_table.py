"""Pairs of items by row number: twelve bytes a pair, however many there are."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.items.item import Item

UNKNOWN = -1
OnFailure = Callable[[ItemError], None]


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs with their labels.

    Attributes:
        items: no two have the same id.
        left: (n,) int32, rows of ``items``.
        right: (n,) int32.
        labels: (n,) int8: 1 same product, 0 different, -1 unknown.
    """

    items: tuple[Item, ...]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[Any]) -> PairTable:
        """The pairs at some rows, or where a mask of bools holds; ``items`` stay as they are."""
        return replace(self, left=self.left[rows], right=self.right[rows], labels=self.labels[rows])

    def item_rows(self) -> NDArray[np.int32]:
        """Rows of the items that are in some pair, ascending."""
        return np.union1d(self.left, self.right)

    def used_items(self) -> list[Item]:
        """The items that are in some pair."""
        return [self.items[row] for row in self.item_rows().tolist()]

    def compact(self) -> PairTable:
        """The same pairs, with ``used_items`` as all its items."""
        rows = self.item_rows()
        left, right = (np.searchsorted(rows, side).astype(np.int32) for side in (self.left, self.right))
        return replace(self, items=tuple(self.used_items()), left=left, right=right)

    def without_items(self, rows: Collection[int]) -> NDArray[np.bool_]:
        """(n,) which pairs have none of the items in some rows."""
        named = np.zeros(len(self.items), bool)
        named[list(rows)] = True
        mask: NDArray[np.bool_] = ~(named[self.left] | named[self.right])
        return mask

    def fingerprint(self) -> str:
        """sha256, in hex, of ids and contents of the items in some pair, and of the pairs in order with labels."""
        used = self.item_rows()
        digest = hashlib.sha256(len(used).to_bytes(8, "little"))
        for row in used.tolist():
            item = self.items[row]
            digest.update(hashlib.sha256(item.item_id.encode(errors="surrogatepass")).digest() + item.content_hash())
        for side in (self.left, self.right):
            digest.update(np.searchsorted(used, side).astype("<i4").tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


class PairCollector:
    """Gathers pairs one by one; ``finish`` merges those that say the same."""

    def __init__(self, source: str) -> None:
        """``source`` is named in errors."""
        self.items: list[Item] = []
        self._source = source
        self._left, self._right, self._lines = array("i"), array("i"), array("q")
        self._labels, self._anonymous = array("b"), array("b")

    def add(self, line: int, left: int, right: int, label: int, *, anonymous: bool) -> None:
        """Note a pair of rows of ``items``; pairs of anonymous items are never merged."""
        self._left.append(left)
        self._right.append(right)
        self._labels.append(label)
        self._lines.append(line)
        self._anonymous.append(anonymous)

    def finish(self, on_contradiction: OnFailure) -> PairTable:
        """The pairs, each once and in the order and orientation in which it first came.

        A pair with and without a label has that label. One that is labelled both ways is left out and handed to
        ``on_contradiction``.
        """
        left, right = np.array(self._left, np.int32), np.array(self._right, np.int32)
        labels, lines = np.array(self._labels, np.int8), np.array(self._lines, np.int64)
        keys = np.minimum(left, right).astype(np.int64) * (len(self.items) + 1) + np.maximum(left, right)
        keys = np.where(np.array(self._anonymous, np.int8) != 0, -1 - np.arange(len(keys)), keys)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        known = {}
        for label in (0, 1):
            known[label] = np.zeros(len(first), bool)
            known[label][group[labels == label]] = True
        merged = np.where(known[1], 1, np.where(known[0], 0, UNKNOWN)).astype(np.int8)
        contradicting = known[0] & known[1]
        by_group = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=len(first)))
        for number in np.flatnonzero(contradicting).tolist():
            rows = by_group[ends[number - 1] if number else 0 : ends[number]]
            on_contradiction(self._contradiction(left[rows], right[rows], labels[rows], lines[rows]))
        order = np.argsort(first[~contradicting])
        kept = first[~contradicting][order]
        return PairTable(tuple(self.items), left[kept], right[kept], merged[~contradicting][order])

    def _contradiction(
        self, left: NDArray[Any], right: NDArray[Any], labels: NDArray[Any], lines: NDArray[Any]
    ) -> ItemError:
        ids = [self.items[side[0]].item_id for side in (left, right)]
        same, different = (int(lines[labels == label][0]) for label in (1, 0))
        return ItemError(
            "contradiction",
            f"{self._source}: the pair {ids[0]!r}, {ids[1]!r} is labelled 1 in line {same} and 0 in line {different}; "
            "keep the right one",
        )
