"""Texts as token ids, padded into a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Input of a text encoder for n texts, as long as the longest of them.

    Attributes:
        input_ids: (n, L) int64.
        attention_mask: (n, L) int64, 1 on tokens, 0 on padding.
        token_type_ids: (n, L) int64: which segment a token belongs to; 0 on padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The batch on another device."""
        return TokenBatch(self.input_ids.to(device), self.attention_mask.to(device), self.token_type_ids.to(device))

    def rows(self, index: slice | Tensor) -> TokenBatch:
        """Some of the texts, without the padding that only the others needed."""
        mask = self.attention_mask[index]
        length = int(mask.sum(1).max()) if len(mask) else 0
        return TokenBatch(self.input_ids[index, :length], mask[:, :length], self.token_type_ids[index, :length])
