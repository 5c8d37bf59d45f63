"""Attention between rows of states: every head with keys of its own, or all heads with one set of keys (multi-query).

Letters in shapes: n items, L queries, S keys, H width, h heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Turns of the first and the last pair of numbers, as published (Su et al. 2021).
_ROTARY_BASE = 10_000.0


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` over what each query may see; zeros of a query that sees nothing.

    Args:
        queries: (n, h, L, d).
        keys: (n, h or 1, S, d).
        values: (n, h or 1, S, d).
        visible: bool, broadcast to (n, h, L, S).

    Returns:
        (n, L, h * d), the heads side by side.
    """
    count, heads, length, width = queries.shape
    shape = (count, heads, *keys.shape[2:])
    sees = visible.any(-1, keepdim=True)
    found = functional.scaled_dot_product_attention(
        queries, keys.expand(shape), values.expand(shape), attn_mask=visible | ~sees
    )
    return (found * sees).transpose(1, 2).reshape(count, length, heads * width)


def token_mask(mask: Tensor) -> Tensor:
    """(n, S), not 0 on what is there -> (n, 1, 1, S) for ``attend``: every query sees all that is there."""
    return mask.bool()[:, None, None]


def causal_mask(mask: Tensor) -> Tensor:
    """(n, S) as ``token_mask`` -> (n, 1, S, S): a query sees itself and what stands before it."""
    length = mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return token_mask(mask) & before


def rotate(states: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): number i and number i + d/2 of place p turn by ``p * 10000^(-2i/d)``.

    The product of two turned vectors depends on how far apart they stand, not on where.

    Args:
        states: (..., L, d), d even.
    """
    length, width = states.shape[-2:]
    steps = torch.arange(width // 2, device=states.device, dtype=torch.float64)
    angles = torch.arange(length, device=states.device)[:, None] * _ROTARY_BASE ** (-2 * steps / width)
    cos, sin = (turned.to(states.dtype) for turned in (angles.cos(), angles.sin()))
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def starts_as_nothing(layer: nn.Linear) -> nn.Linear:
    """A layer whose output is added to what was there: a new one adds nothing, so that a pretrained state stays."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class MultiHeadAttention(nn.Module):
    """Queries of one sequence, keys and values of another, or of the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = starts_as_nothing(nn.Linear(width, width))

    def forward(self, states: Tensor, others: Tensor, visible: Tensor) -> Tensor:
        """(n, L, H), (n, S, H), as ``attend`` -> (n, L, H)."""
        queries, keys, values = (
            layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, given in ((self.query, states), (self.key, others), (self.value, others))
        )
        attended: Tensor = self.out(attend(queries, keys, values, visible))
        return attended
