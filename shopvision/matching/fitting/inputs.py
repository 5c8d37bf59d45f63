"""What a training step feeds a pair model: sequences of pairs, or of items, and pictures as features or pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.packing import Packer
from shopvision.training.pixels import PixelReader

Rows = NDArray[np.integer[Any]]


class Pictures(Protocol):
    """Pictures of the items of one split."""

    def take(self, items: Rows, generator: np.random.Generator | None) -> Tensor:
        """Of n items: features (n, d) float32, or pixels (n, H, W, 3) uint8; with a generator those of training."""


@dataclass(frozen=True)
class FeaturePictures:
    """Cached features, the same in training and evaluation.

    Attributes:
        features: (items, d) float16 or float32, zeros where an item has no picture.
    """

    features: NDArray[np.floating[Any]]

    def take(self, items: Rows, generator: np.random.Generator | None) -> Tensor:  # noqa: ARG002 - they do not vary
        """(n, d) float32."""
        return torch.from_numpy(self.features[items].astype(np.float32))


@dataclass(frozen=True)
class PixelPictures:
    """Pixels: random crops in training, the whole picture in evaluation.

    Attributes:
        uris: address of each item's picture.
        reader: reads them.
    """

    uris: list[str]
    reader: PixelReader

    def take(self, items: Rows, generator: np.random.Generator | None) -> Tensor:
        """(n, H, W, 3) uint8."""
        crops = None if generator is None else generator.random((len(items), 2))
        return self.reader.read([self.uris[item] for item in items.tolist()], crops)


@dataclass(frozen=True)
class PairBatch:
    """n pairs for a model that reads both items at once.

    Attributes:
        tokens: of the pairs.
        features: (n, 2, d) of both items' pictures; None for models of text alone.
        slots: (n, 2) where the picture tokens are.
        labels: (n,) float32, 1 for the same product, else 0.
    """

    tokens: TokenBatch
    features: Tensor | None
    slots: Tensor | None
    labels: Tensor

    def part(self, rows: slice) -> PairBatch:
        """Some of the pairs, without the padding that only the others needed."""
        features, slots = (None if tensor is None else tensor[rows] for tensor in (self.features, self.slots))
        return PairBatch(self.tokens.rows(rows), features, slots, self.labels[rows])


@dataclass(frozen=True)
class ItemBatch:
    """m items for a model that reads each item by itself.

    Attributes:
        tokens: of the items; None for models of pictures.
        pictures: features (m, d) or pixels (m, H, W, 3); None for models of text.
    """

    tokens: TokenBatch | None
    pictures: Tensor | None

    def __len__(self) -> int:
        inputs = self.tokens if self.tokens is not None else self.pictures
        return 0 if inputs is None else len(inputs)

    def part(self, rows: slice) -> ItemBatch:
        """Some of the items."""
        tokens = None if self.tokens is None else self.tokens.rows(rows)
        return ItemBatch(tokens, None if self.pictures is None else self.pictures[rows])


class PairInputs:
    """Inputs of one split. Every item is tokenised once.

    Attributes:
        items: the items of the split's pairs, in the order of the table.
        left: (n,) positions in ``items``.
        right: (n,)
        labels: (n,) int8.
    """

    def __init__(self, table: PairTable, packer: Packer | None, pictures: Pictures | None) -> None:
        """Of the labelled pairs in ``table``; ``pictures`` are by position in ``items``."""
        used = table.item_rows()
        self.items = [table.items[row] for row in used.tolist()]
        self.left, self.right = np.searchsorted(used, table.left), np.searchsorted(used, table.right)
        self.labels = table.labels
        self._packer, self._pictures = packer, pictures
        self._tokens = None if packer is None else packer.items(self.items)

    def __len__(self) -> int:
        return len(self.labels)

    def pair_lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair as one sequence; zeros without text."""
        if self._packer is None or self._tokens is None:
            return np.zeros(len(self), np.int64)
        return self._packer.pair_lengths(self._tokens, self.left, self.right)

    def item_lengths(self) -> NDArray[np.int64]:
        """Tokens of each item by itself; zeros without text."""
        if self._packer is None or self._tokens is None:
            return np.zeros(len(self.items), np.int64)
        return self._packer.single_lengths(self._tokens)

    def pairs(self, rows: Rows, swapped: NDArray[np.bool_], generator: np.random.Generator | None) -> PairBatch:
        """Pairs as sequences, with the right item first where ``swapped`` holds."""
        if self._packer is None or self._tokens is None:
            raise ValueError("a model of pairs needs text")
        first = np.where(swapped, self.right[rows], self.left[rows])
        second = np.where(swapped, self.left[rows], self.right[rows])
        packed = self._packer.pairs(self._tokens, first, second)
        features = None
        if self._pictures is not None:
            both = self._pictures.take(np.stack([first, second], axis=1).ravel(), generator)
            features = both.view(len(rows), 2, -1)
        labels = torch.from_numpy(self.labels[rows].astype(np.float32))
        return PairBatch(packed.tokens, features, packed.slots, labels)

    def single(self, items: Rows, generator: np.random.Generator | None) -> ItemBatch:
        """Items at positions ``items``, each by itself."""
        tokens = pictures = None
        if self._packer is not None and self._tokens is not None:
            tokens = self._packer.singles(self._tokens, items).tokens
        if self._pictures is not None:
            pictures = self._pictures.take(items, generator)
        return ItemBatch(tokens, pictures)
