"""The last layer of a BERT-like encoder computed for the first token alone, where nothing else of it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from shopvision.models.text_backbone import is_plain_bert

if TYPE_CHECKING:
    from shopvision.matching.model import OneTower


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


def compute_first_token_alone(network: OneTower) -> bool:
    """Put a ``FirstTokenLayer`` in place of the last layer where the head reads its first token alone.

    Returns:
        Whether it could be done: other networks stay as they are.
    """
    if network.pooling != "cls" or network.layers != (1,) or not is_plain_bert(network.text):
        return False
    layers: Any = network.text.encoder.layer  # type: ignore[union-attr] # transformers is untyped
    layers[-1] = FirstTokenLayer(layers[-1])
    return True
