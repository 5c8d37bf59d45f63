"""What networks of pair models take and give, whatever their family: part of the contract of ``_family``.

Letters in shapes: n pairs or items of a batch, m items in memory, d dimensions of item vectors or picture features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.items.item import Item
from shopvision.items.text_normalisation import normalise

Rows: TypeAlias = NDArray[np.integer[Any]]
Kept = TypeVar("Kept")


class Batch(Protocol):
    """What a network reads at once: n pairs, or n items."""

    def __len__(self) -> int:
        """N."""

    def to(self, device: torch.device, /) -> Self:
        """The batch on another device."""

    def rows(self, index: slice, /) -> Self:
        """Some of its pairs or items, without padding that only the others needed."""


@dataclass(frozen=True, slots=True)
class LossTerm:
    """A further loss that a network learns from, beside that of the pairs' labels.

    Attributes:
        value: (), the mean over the pairs or items of the batch, with gradient.
        weight: how much it counts beside the loss of the labels.
    """

    value: Tensor
    weight: float = 1.0


LossTerms: TypeAlias = Mapping[str, LossTerm]


class PairNetwork(nn.Module, ABC):
    """A network that reads both items of a pair at once."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Log-odds of "same", (n,), of the pairs of a batch."""

    def learn_first(self, agreement: Tensor, labels: Tensor) -> None:
        """Learn from the training pairs before the first step; nothing, where the steps are enough for all of it.

        Args:
            agreement: (n, k) of ``PairReader.agreement``.
            labels: (n,) 1 for the same product, else 0.
        """

    def training_outputs(self, batch: Any) -> tuple[Tensor, LossTerms]:
        """What training wants of a batch: ``forward``, and further losses by name."""
        logits: Tensor = self(batch)
        return logits, {}

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the network as fast as ``device`` allows; it is neither trained nor saved any more."""
        self.requires_grad_(requires_grad=False).to(device, dtype).eval()


class ItemNetwork(nn.Module, ABC):
    """A network that gives each item a vector.

    Attributes:
        dimension: d.
        head: two vectors to log-odds.
    """

    dimension: int
    head: nn.Module

    @abstractmethod
    def encode(self, batch: Any) -> Tensor:
        """(n, d) float32 of the items of a batch; of unit length where the head takes cosines."""

    def training_outputs(self, batch: Any) -> tuple[Tensor, LossTerms]:
        """What training wants of a batch: ``encode``, and further losses by name."""
        return self.encode(batch), {}

    def pair_logits(self, u: Tensor, v: Tensor) -> Tensor:
        """Log-odds of "same": (n, d), (n, d) -> (n,)."""
        logits: Tensor = self.head(u, v)
        return logits

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002 - see below
        """Make the network as fast as ``device`` allows; it is neither trained nor saved any more.

        Nothing is cast unless a family does it: vectors are kept, and a head on two vectors is little work.
        """
        self.requires_grad_(requires_grad=False).to(device).eval()


class PairReader(ABC, Generic[Kept]):
    """Makes batches of pairs; every item is read once."""

    @abstractmethod
    def read(self, items: Sequence[Item]) -> Kept:
        """What is kept of m items."""

    def has_text(self, item: Item) -> bool:
        """Whether an item's texts hold anything to read. Those that build texts judge by what they build."""
        return any(map(normalise, (item.title, item.description, *chain(*item.attributes.values()))))

    @abstractmethod
    def lengths(self, kept: Kept, left: Rows, right: Rows) -> NDArray[np.int64]:
        """(n,) how long each pair is for the network, in tokens or the like: batches are made of pairs of like length.

        Args:
            kept: of ``read``.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
        """

    @abstractmethod
    def batch(self, kept: Kept, left: Rows, right: Rows, pictures: Tensor | None) -> Any:
        """A batch for the network.

        Args:
            kept: of ``read``.
            left: (n,) as above.
            right: (n,)
            pictures: (n, 2, d) of both items, as ``Family.pictures`` says; None where it reads none.
        """

    def agreement(self, kept: Kept, left: Rows, right: Rows) -> Tensor | None:  # noqa: ARG002 - most do without
        """(n, k) what the items of each pair state about each other; None where the network does not read it."""
        return None


class ItemReader(ABC, Generic[Kept]):
    """Makes batches of items; every item is read once."""

    @abstractmethod
    def read(self, items: Sequence[Item]) -> Kept:
        """What is kept of m items."""

    def has_text(self, item: Item) -> bool:
        """Whether an item's texts hold anything to read. Those that build texts judge by what they build."""
        return any(map(normalise, (item.title, item.description, *chain(*item.attributes.values()))))

    @abstractmethod
    def lengths(self, kept: Kept) -> NDArray[np.int64]:
        """(m,) how long each item is for the network, as of ``PairReader``; ones where all are alike."""

    @abstractmethod
    def batch(self, kept: Kept, rows: Rows, pictures: Tensor | None) -> Any:
        """A batch for the network.

        Args:
            kept: of ``read``.
            rows: (n,) of the items.
            pictures: (n, ...) of these items, as ``Family.pictures`` or ``Family.frozen_features`` says; None where it
                reads none.
        """
