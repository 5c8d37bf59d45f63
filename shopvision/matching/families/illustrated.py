"""Token sequences with pictures: batches of pairs or of items, and how features take the places of picture tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shopvision.encoders.tokens import TokenBatch
from shopvision.matching.families.packing import PackedBatch


@dataclass(frozen=True, slots=True)
class Illustrated:
    """n pairs or items with pictures.

    Attributes:
        tokens: of the pairs or items.
        slots: (n, 2) int64, the positions of a pair's picture tokens, (n, 1) of items; None where there are none.
        pictures: (n, 2, d) features of both items' pictures, (n, 1, d) of items; zeros where an item has none, so that
            only a projection's bias is left of it: the learned vector for "no picture".
    """

    tokens: TokenBatch
    slots: Tensor | None
    pictures: Tensor

    @classmethod
    def of(cls, packed: PackedBatch, pictures: Tensor | None) -> Illustrated:
        """Of what a packer and a reader of pictures gave."""
        if pictures is None:
            raise ValueError("a model of texts and pictures needs both")
        return cls(packed.tokens, packed.slots, pictures)

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> Illustrated:
        """The batch on another device."""
        slots = None if self.slots is None else self.slots.to(device)
        return Illustrated(self.tokens.to(device), slots, self.pictures.to(device))

    def rows(self, index: slice) -> Illustrated:
        """Some of the pairs or items, without the padding that only the others needed."""
        slots = None if self.slots is None else self.slots[index]
        return Illustrated(self.tokens.rows(index), slots, self.pictures[index])


def picture_projection(text: nn.Module, features: int) -> nn.Linear:
    """Features of a picture to a word embedding of a text encoder."""
    words: nn.Embedding = text.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
    return nn.Linear(features, words.embedding_dim)


def embeddings_with_pictures(text: nn.Module, projection: nn.Linear, batch: Illustrated) -> Tensor | None:
    """(n, L, H) word embeddings, pictures in the places of their tokens; None where there are no such tokens."""
    if batch.slots is None:
        return None
    embeddings: Tensor = text.get_input_embeddings()(batch.tokens.input_ids)  # type: ignore[operator] # as above
    projected = projection(batch.pictures.to(projection.weight.dtype)).to(embeddings.dtype)
    return embeddings.scatter(1, batch.slots.unsqueeze(2).expand_as(projected), projected)
