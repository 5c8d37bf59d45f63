"""Token ids of items, kept so that sequences of many pairs can be put together at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.items.code_agreement import ItemCodes

Rows: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class TokenizedItem:
    """Token ids of one item, int32, without special tokens; at most ``max_length`` of each part."""

    category: str
    title: NDArray[np.int32]
    keys: tuple[str, ...]
    pieces: tuple[NDArray[np.int32], ...]
    codes: ItemCodes | None = None


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """Token ids of n items in one array, so that many pairs are packed at once.

    Attributes:
        categories: n.
        keys: n, of each item's pieces.
        tokens: all parts one after another: title, first piece, ..., of the first item, then of the next.
        starts: (parts + 1,) where each part starts in ``tokens``.
        first: (n + 1,) which part is an item's title.
        codes: n; None where they are not compared.
    """

    categories: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    codes: tuple[ItemCodes | None, ...]

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, row: int) -> TokenizedItem:
        parts = [
            self.tokens[self.starts[part] : self.starts[part + 1]]
            for part in range(self.first[row], self.first[row + 1])
        ]
        return TokenizedItem(self.categories[row], parts[0], self.keys[row], tuple(parts[1:]), self.codes[row])

    def __iter__(self) -> Iterator[TokenizedItem]:
        return map(self.__getitem__, range(len(self)))

    @classmethod
    def join(cls, items: Sequence[TokenizedItem]) -> ItemTokens:
        """The items' tokens in one array."""
        parts = [part for item in items for part in (item.title, *item.pieces)]
        return cls(
            tuple(item.category for item in items),
            tuple(item.keys for item in items),
            np.concatenate([np.zeros(0, np.int32), *parts]),
            offsets(len(part) for part in parts),
            offsets(1 + len(item.pieces) for item in items),
            tuple(item.codes for item in items),
        )

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """How many tokens each of these items has, title and pieces."""
        sizes: NDArray[np.int64] = self.starts[self.first[rows + 1]] - self.starts[self.first[rows]]
        return sizes


def offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where parts of these lengths start when laid end to end, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.fromiter(lengths, np.int64))])
