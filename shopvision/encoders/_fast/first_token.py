"""The last layer of a BERT-like encoder computed for the first token alone, where nothing else of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_networks import is_plain_bert


class FirstTokenLayer(nn.Module):
    """A layer of BERT, RoBERTa or XLM-R that gives (n, 1, H) instead of (n, L, H).

    Keys and values are of all tokens; query, output and the feed-forward part, five sixths of a layer's work, of one.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer  # transformers is untyped

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """(n, L, H), mask (n, 1, 1 or L, L), added to or chosen from the attention -> (n, 1, H)."""
        attention = self.layer.attention.self
        first = hidden_states[:, :1]
        query, key, value = (
            projection(states).unflatten(2, (attention.num_attention_heads, -1)).transpose(1, 2)
            for projection, states in (
                (attention.query, first),
                (attention.key, hidden_states),
                (attention.value, hidden_states),
            )
        )
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = self.layer.attention.output(context.transpose(1, 2).flatten(2), first)
        states: Tensor = self.layer.output(self.layer.intermediate(attended), attended)
        return states


def compute_first_token_alone(text: nn.Module, *, pooling: str, layers: Sequence[int]) -> bool:
    """Put a ``FirstTokenLayer`` in place of the last layer where the head reads its first token alone.

    Args:
        text: the encoder, changed in place.
        pooling: what the head reads of a layer, as ``cls``.
        layers: which layers it reads, counted from the top.

    Returns:
        Whether it could be done: other networks stay as they are.
    """
    if pooling != "cls" or tuple(layers) != (1,) or not is_plain_bert(text):
        return False
    stack: Any = text.encoder.layer  # type: ignore[union-attr] # transformers is untyped
    stack[-1] = FirstTokenLayer(stack[-1])
    return True
