"""What K3M's network is made of (Xu et al. 2021): co-attention, interactive fusion, structure aggregation.

Letters in shapes: n items, L states of a modality, S states of another one, H width, T attributes of an item.
Whatever is added to what pretrained encoders say begins as nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.matching.families.attention import MultiHeadAttention, starts_as_nothing, token_mask

Fusion = Literal["mean", "soft", "hard"]


class CoAttention(nn.Module):
    """One modality looks at another (Lu et al. 2019, figure 2b), then a feed-forward layer; both normed before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm_other = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), starts_as_nothing(nn.Linear(2 * width, width))
        )

    def forward(self, states: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """(n, L, H), (n, S, H), (n, S) bool of what is there -> (n, L, H)."""
        states = states + self.attention(self.norm(states), self.norm_other(others), token_mask(mask))
        looked: Tensor = states + self.feed_forward(states)
        return looked


class InteractiveFusion(nn.Module):
    """What a modality says by itself, and what it says having looked at each of the others, as one.

    ==========  ==========================================================================================
    ``mean``    of all
    ``soft``    weighed, state by state, with a softmax of learnt scores
    ``hard``    one of them, state by state: drawn by its score in training (Gumbel, with the gradient of the
                softmax), the highest one afterwards
    ==========  ==========================================================================================
    """

    def __init__(self, width: int, fusion: Fusion) -> None:
        super().__init__()
        self.fusion: Fusion = fusion
        self.score = None if fusion == "mean" else nn.Linear(width, 1)

    def forward(self, versions: Tensor, there: Tensor) -> Tensor:
        """The states of a modality.

        Args:
            versions: (n, V, L, H), the modality by itself first.
            there: (n, V) bool: whether there was anything to look at; always true of the first.

        Returns:
            (n, L, H).
        """
        absent = ~there[:, :, None]
        if self.score is None:
            scores = torch.zeros(versions.shape[:3], device=versions.device, dtype=versions.dtype)
        else:
            scores = self.score(versions)[..., 0]
        scores = scores.masked_fill(absent, -torch.inf)
        if self.fusion == "hard":
            if self.training:
                shares = functional.gumbel_softmax(scores, hard=True, dim=1)
            else:
                shares = functional.one_hot(scores.argmax(1), scores.shape[1]).movedim(-1, 1).to(scores.dtype)
        else:
            shares = scores.softmax(1)
        return torch.einsum("nvl,nvlh->nlh", shares.to(versions.dtype), versions)


class StructureAggregation(nn.Module):
    """An item's vector with what its triples add: attention over ``W [item; key; value]`` of each attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.triple = starts_as_nothing(nn.Linear(3 * width, width))
        self.score = nn.Linear(width, 1)

    def forward(self, items: Tensor, keys: Tensor, values: Tensor, there: Tensor) -> Tensor:
        """(n, H), (n, T, H), (n, T, H), (n, T) bool -> (n, H)."""
        triples = self.triple(torch.cat([items[:, None].expand_as(keys), keys, values], dim=2))
        scores = functional.leaky_relu(self.score(triples)[..., 0], 0.2)
        # Of an item without attributes all scores are lowest alike, and what they weigh counts for nothing.
        shares = scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(1) * there
        joined: Tensor = items + (shares[..., None] * triples).sum(1)
        return joined


def mean_of_triples(states: Tensor, triples: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Means of the states of each attribute.

    Args:
        states: (n, A, H).
        triples: (n, A) int64: attribute of each state, from 1 on; 0 where it counts for none.
        count: T.

    Returns:
        (n, T, H), and (n, T) bool, whether there is such an attribute.
    """
    belongs = functional.one_hot(triples, count + 1)[:, :, 1:].to(states.dtype)
    sizes = belongs.sum(1)
    return torch.einsum("nat,nah->nth", belongs, states) / sizes.clamp(min=1)[..., None], sizes > 0
