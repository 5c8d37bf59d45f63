"""What a training step feeds a pair model: batches of pairs or of items, with pictures as features or pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.items.pair_table import PairTable
from shopvision.matching.families._network import Batch, ItemReader, PairNetwork, PairReader, Rows
from shopvision.matching.fitting.distillation import TaughtPairs
from shopvision.training.pixels import PixelReader


class Pictures(Protocol):
    """Pictures of the items of one split."""

    def take(self, items: Rows, generator: np.random.Generator | None) -> Tensor:
        """Of n items: features (n, d) float32, or pixels (n, H, W, 3) uint8; with a generator those of training."""

    def select(self, items: Rows) -> Pictures:
        """Pictures of the items at these positions."""


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

    def select(self, items: Rows) -> FeaturePictures:
        """See ``Pictures``."""
        return FeaturePictures(self.features[items])


@dataclass(frozen=True)
class PixelPictures:
    """Pixels: random crops in training, the whole picture in evaluation.

    Attributes:
        uris: address of each item's picture; empty where it has none that can be read.
        reader: reads them.
        flips: share of them that are mirrored in training.
    """

    uris: list[str]
    reader: PixelReader
    flips: float = 0.0

    def take(self, items: Rows, generator: np.random.Generator | None) -> Tensor:
        """(n, H, W, 3) uint8; zeros where an item has no picture."""
        crops = mirrored = None
        if generator is not None:
            crops = generator.random((len(items), 2))
            mirrored = generator.random(len(items)) < self.flips if self.flips else None
        uris = [self.uris[item] for item in items.tolist()]
        rows = [row for row, uri in enumerate(uris) if uri]
        if len(rows) == len(uris):
            return self.reader.read(uris, crops, mirrored)
        pixels = torch.zeros(len(uris), *self.reader.size, 3, dtype=torch.uint8)
        if rows:
            pixels[rows] = self.reader.read(
                [uris[row] for row in rows],
                None if crops is None else crops[rows],
                None if mirrored is None else mirrored[rows],
            )
        return pixels

    def select(self, items: Rows) -> PixelPictures:
        """See ``Pictures``."""
        return replace(self, uris=[self.uris[item] for item in items.tolist()])


class Inputs:
    """Labelled pairs of one split.

    Attributes:
        items: the items of the split's pairs, in the order of the table.
        left: (n,) positions in ``items``.
        right: (n,)
        labels: (n,) int8; -1 where only a teacher has said something.
        teacher: (n,) float32, a teacher's log-odds; None without one.
    """

    def __init__(self, table: PairTable, pictures: Pictures | None) -> None:
        """Of the labelled pairs in ``table``; ``pictures`` are by position in ``items``."""
        used = table.item_rows()
        self.items = [table.items[row] for row in used.tolist()]
        self.left, self.right = np.searchsorted(used, table.left), np.searchsorted(used, table.right)
        self.labels = table.labels
        self.teacher = table.teacher if isinstance(table, TaughtPairs) else None
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self.labels)

    def sides(self, rows: Rows, swapped: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the first and second items of pairs, the right item first where ``swapped`` holds."""
        left, right = self.left[rows], self.right[rows]
        return np.where(swapped, right, left), np.where(swapped, left, right)

    def labels_of(self, rows: Rows) -> Tensor:
        """(n,) float32, 1 for the same product, 0 for different ones, -1 where no label says."""
        return torch.from_numpy(self.labels[rows].astype(np.float32))

    def teacher_of(self, rows: Rows) -> Tensor | None:
        """(n,) float32, what a teacher says."""
        return None if self.teacher is None else torch.from_numpy(self.teacher[rows])


class PairInputs(Inputs):
    """For a network that reads both items at once."""

    def __init__(self, table: PairTable, reader: PairReader[Any], pictures: Pictures | None) -> None:
        """See ``Inputs``; every item is read once."""
        super().__init__(table, pictures)
        self._reader, self._kept = reader, reader.read(self.items)

    def pair_lengths(self) -> NDArray[np.int64]:
        """(pairs,) how long each is for the network."""
        return self._reader.lengths(self._kept, self.left, self.right)

    def batch(self, rows: Rows, swapped: NDArray[np.bool_], generator: np.random.Generator | None) -> Batch:
        """Pairs for the network; with a generator those of training."""
        first, second = self.sides(rows, swapped)
        pictures = None
        if self._pictures is not None:
            both = self._pictures.take(np.stack([first, second], axis=1).ravel(), generator)
            pictures = both.view(len(rows), 2, *both.shape[1:])
        batch: Batch = self._reader.batch(self._kept, first, second, pictures)
        return batch

    def learn_first(self, network: PairNetwork) -> None:
        """Let a network learn what it learns before the first step, from the pairs that have a label."""
        known = self.labels >= 0
        agreement = self._reader.agreement(self._kept, self.left[known], self.right[known])
        if agreement is not None:
            network.learn_first(agreement, torch.from_numpy(self.labels[known]))


class ItemInputs(Inputs):
    """For a network that reads each item by itself."""

    def __init__(self, table: PairTable, reader: ItemReader[Any], pictures: Pictures | None) -> None:
        """See ``Inputs``; every item is read once."""
        super().__init__(table, pictures)
        self._reader, self._kept = reader, reader.read(self.items)

    def item_lengths(self) -> NDArray[np.int64]:
        """(items,) how long each is for the network."""
        return self._reader.lengths(self._kept)

    def pair_lengths(self) -> NDArray[np.int64]:
        """(pairs,) the longer item's."""
        lengths = self.item_lengths()
        return np.maximum(lengths[self.left], lengths[self.right])

    def batch(self, items: Rows, generator: np.random.Generator | None) -> Batch:
        """Items at positions ``items`` for the network; with a generator those of training."""
        pictures = None if self._pictures is None else self._pictures.take(items, generator)
        batch: Batch = self._reader.batch(self._kept, items, pictures)
        return batch
