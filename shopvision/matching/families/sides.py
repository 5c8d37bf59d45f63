"""A one-tower that compares what it says of both items of a pair: a vector of each, made with both in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import pool_states
from shopvision.encoders.tokens import TokenBatch
from shopvision.matching.families._network import PairNetwork, Rows
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.text_reading import TextPairReader
from shopvision.matching.families.towers import OneTower


@dataclass(frozen=True, slots=True)
class SidedPairs:
    """n pairs.

    Attributes:
        tokens: of the pairs.
        second: (n,) int64, where the second item of each begins.
    """

    tokens: TokenBatch
    second: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> SidedPairs:
        """The batch on another device."""
        return SidedPairs(self.tokens.to(device), self.second.to(device))

    def rows(self, index: slice) -> SidedPairs:
        """Some of the pairs, without the padding that only the others needed."""
        return SidedPairs(self.tokens.rows(index), self.second[index])


class SidedPairReader(TextPairReader):
    """Pairs as token sequences that know where the second item begins."""

    def batch(self, kept: ItemTokens, left: Rows, right: Rows, pictures: Tensor | None) -> SidedPairs:  # noqa: ARG002
        """See ``PairReader``."""
        packed = self.packer.pairs(kept, left, right)
        assert packed.second is not None  # noqa: S101 - for the type checker: of pairs
        return SidedPairs(packed.tokens, packed.second)


class SidesTower(OneTower):
    """A one-tower whose head, a ``SidesHead``, compares the states of both items.

    With the pooling ``cls`` these are the first token's, and that of the separator before the second item; with
    ``mean`` the means of each item's tokens.
    """

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``SidedPairs``."""
        tokens, second = batch.tokens, batch.second.unsqueeze(1)
        places = torch.arange(tokens.input_ids.shape[1], device=second.device)
        if self.pooling == "cls":
            masks = [places.expand_as(tokens.input_ids) == 0, places == second - 1]
        else:
            masks = [places < second, (places >= second) & (tokens.attention_mask > 0)]
        layers = self.layer_states(tokens)
        # One token has itself for a mean.
        u, v = (self.put_together([pool_states(layer, mask, "mean") for layer in layers]) for mask in masks)
        logits: Tensor = self.head(u, v)
        return logits

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``PairNetwork``."""
        PairNetwork.prepare_for_scoring(self, device, dtype)
        accelerate_text_encoder(self.text, pooling="mean", layers=self.layers)  # more than the first token is read
