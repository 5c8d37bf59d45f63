"""Saying which word stands somewhere, among the words that a shop's catalogue uses; and hiding words to be said.

Letters in shapes: n items, L tokens, H width of the states, V words of the catalogue, k asked places.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

# As BERT was trained (Devlin et al. 2019): so many words are asked for; of these most are hidden, some are others.
ASKED, HIDDEN, OTHER = 0.15, 0.8, 0.1


class WordPrediction(nn.Module):
    """States to words: dense layer, GELU, layer norm, then products with the words' own embeddings.

    The softmax runs over the words that the catalogue uses, which a shop's items never leave: of 30,000 words, or
    250,000 of a multilingual encoder, some thousands.

    Attributes:
        words: (V,) int64, their ids ascending.
    """

    words: Tensor

    def __init__(self, words: NDArray[np.integer], width: int) -> None:
        """``words`` are the ids to choose from, in any order, repeated or not."""
        super().__init__()
        self.register_buffer("words", torch.from_numpy(np.unique(words).astype(np.int64)), persistent=False)
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(len(self.words)))

    def loss(self, states: Tensor, wanted: Tensor, asked: Tensor, embeddings: Tensor) -> Tensor:
        """Cross entropy of the words asked for, () float32; 0 where none is.

        Args:
            states: (n, L, H).
            wanted: (n, L) int64 ids.
            asked: (n, L) bool.
            embeddings: (vocabulary, H) of the text encoder's words, which learn as well.
        """
        known = asked & torch.isin(wanted, self.words)
        hidden = self.norm(functional.gelu(self.dense(states[known])))
        logits = hidden @ embeddings[self.words].to(hidden.dtype).T + self.bias
        places = torch.searchsorted(self.words, wanted[known])
        return functional.cross_entropy(logits.float(), places, reduction="sum") / max(1, len(places))

    def hide(self, ids: Tensor, may: Tensor, mask: int) -> tuple[Tensor, Tensor]:
        """Hide words of n sequences.

        Args:
            ids: (n, L) int64.
            may: (n, L) bool: which may be asked for.
            mask: id of the word that stands for a hidden one.

        Returns:
            The ids as they are to be read, and which are asked for, (n, L) bool.
        """
        draw = torch.rand(ids.shape, device=ids.device)
        asked = may & (draw < ASKED)
        others = self.words[torch.randint(len(self.words), ids.shape, device=ids.device)]
        shown = torch.where(asked & (draw < ASKED * HIDDEN), mask, ids)
        replaced = asked & (draw >= ASKED * HIDDEN) & (draw < ASKED * (HIDDEN + OTHER))
        return torch.where(replaced, others, shown), asked
