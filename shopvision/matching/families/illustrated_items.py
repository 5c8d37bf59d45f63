"""Batches of items with a text and a picture each, of which one may be missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.matching.families._network import Rows
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.text_reading import TextItemReader


@dataclass(frozen=True, slots=True)
class IllustratedItems:
    """n items.

    Attributes:
        tokens: of their texts.
        worded: (n,) bool, whether there are any beside the special ones.
        pictures: (n, ...) as ``Family.pictures`` or ``Family.frozen_features`` says; zeros where there is none.
    """

    tokens: TokenBatch
    worded: Tensor
    pictures: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> IllustratedItems:
        """The batch on another device."""
        return IllustratedItems(self.tokens.to(device), self.worded.to(device), self.pictures.to(device))

    def rows(self, index: slice | Tensor) -> IllustratedItems:
        """Some of the items, without the padding that only the others needed."""
        return IllustratedItems(self.tokens.rows(index), self.worded[index], self.pictures[index])


class IllustratedReader(TextItemReader):
    """Items as token sequences with pictures."""

    def batch(self, kept: ItemTokens, rows: Rows, pictures: Tensor | None) -> IllustratedItems:  # type: ignore[override] # a batch all the same
        """See ``ItemReader``."""
        if pictures is None:
            raise ValueError("a model of texts and pictures needs both")
        worded = torch.from_numpy(kept.sizes(rows) > 0)
        return IllustratedItems(self.packer.singles(kept, rows).tokens, worded, pictures)
