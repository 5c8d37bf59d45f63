"""Layers in which texts look at pictures, as CoCa's second half has them (Yu et al. 2022).

Letters in shapes: n items, L tokens of a text, S tokens of a picture, H width, h heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from shopvision.errors import UserError
from shopvision.matching.families.attention import attend, rotate, starts_as_nothing


class MultiQueryBlock(nn.Module):
    """Attention beside a feed-forward layer, both of the same normed states (PaLM, 2022); without biases.

    Attention: every head has queries, all share one set of keys and values (multi-query, Shazeer 2019). The tokens of
    a text have rotary positions, those of a picture have no order. Feed-forward: ``(silu(x W) * (x V)) U`` (SwiGLU,
    Shazeer 2020).
    """

    def __init__(self, width: int, heads: int, multiplier: int) -> None:
        """``multiplier`` times the width is inside the feed-forward layer.

        Raises:
            UserError: the heads do not share the width evenly, or in numbers that cannot be paired.
        """
        super().__init__()
        if width % (2 * heads):
            raise UserError(f"{heads} heads do not share a width of {width} in even parts: set model.heads.")
        self.heads, own = heads, width // heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * own, bias=False)
        self.attended = starts_as_nothing(nn.Linear(width, width, bias=False))
        self.gate_and_values = nn.Linear(width, 2 * multiplier * width, bias=False)
        self.fed = starts_as_nothing(nn.Linear(multiplier * width, width, bias=False))

    def forward(self, states: Tensor, visible: Tensor, picture: Tensor | None = None) -> Tensor:
        """What is to be added to the states.

        Args:
            states: (n, L, H) of a text.
            visible: bool, broadcast to (n, h, L, S): what each token may see.
            picture: (n, S, H), which is looked at; the text itself where it is None.
        """
        normed = self.norm(states)
        queries = self.query(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.key_value(normed if picture is None else picture)[:, None].chunk(2, dim=-1)
        if picture is None:
            queries, keys = rotate(queries), rotate(keys)
        attended: Tensor = self.attended(attend(queries, keys, values, visible))
        gate, inner = self.gate_and_values(normed).chunk(2, dim=-1)
        added: Tensor = attended + self.fed(functional.silu(gate) * inner)
        return added


class MultimodalLayer(nn.Module):
    """A text looks at itself, then at the picture; a new layer changes nothing."""

    def __init__(self, width: int, heads: int, multiplier: int) -> None:
        """See ``MultiQueryBlock``."""
        super().__init__()
        self.itself = MultiQueryBlock(width, heads, multiplier)
        self.at_picture = MultiQueryBlock(width, heads, multiplier)

    def forward(self, states: Tensor, picture: Tensor, visible: Tensor, seen: Tensor) -> Tensor:
        """The states after the layer.

        Args:
            states: (n, L, H) of a text.
            picture: (n, S, H).
            visible: bool, broadcast to (n, h, L, L): which tokens of the text a token sees.
            seen: bool, broadcast to (n, h, L, S): which tokens of the picture it sees.
        """
        states = states + self.itself(states, visible)
        looked: Tensor = states + self.at_picture(states, seen, picture)
        return looked
