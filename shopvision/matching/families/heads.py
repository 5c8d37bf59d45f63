"""Heads: from states or item vectors to the log-odds that two items are the same.

Letters in shapes: n pairs, d features of an item or a pair, h hidden units. Every head returns logits (n,); the
probability of "same" is their sigmoid. With two outputs (cross entropy) the log-odds are their difference, so that
``softmax(outputs)[1] == sigmoid(logit)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.errors import UserError
from shopvision.matching.families.axes import Axes, Similarity

LARGEST_VECTOR = 1024
# Where the learned scale starts: cosines then say probabilities from below 0.01 to 0.99; products are log-odds as they
# are (sigmoid(u.v)).
_FIRST_SCALE: dict[Similarity, tuple[float, float]] = {"cosine": (10.0, -5.0), "inner_product": (1.0, 0.0)}
# A cosine of exactly 1, or a distance of 0, would be infinite log-odds.
_SMALLEST = 1e-6


def log_odds(outputs: Tensor) -> Tensor:
    """(n, 2) class outputs, "different" first, or (n, 1) -> log-odds of "same", (n,)."""
    return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]


class PairHead(nn.Module):
    """Dropout, Linear(d, h), tanh, dropout, Linear(h, 1 or 2) on the states of a pair that was read as one sequence."""

    def __init__(self, features: int, hidden: int, *, outputs: int, dropout: float) -> None:
        """``features`` is the encoder's width, times the number of layers where several are concatenated."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """(n, d) -> log-odds (n,)."""
        return log_odds(self.out(self.dropout(torch.tanh(self.dense(self.dropout(states))))))


class SummedPairHead(PairHead):
    """A pair head on several states of a pair: what the first layer makes of each, behind its tanh, is summed."""

    def forward(self, states: Tensor) -> Tensor:
        """(n, states, d) -> log-odds (n,)."""
        return log_odds(self.out(self.dropout(torch.tanh(self.dense(self.dropout(states))).sum(1))))


class PictureComparingHead(nn.Module):
    """A pair head on the state of a pair's sequence beside one on both pictures, ``[|u - v|; u * v]``.

    Each part ends in its own h hidden units, and one layer reads both: the published fusion at the end, with an
    interaction in place of both pictures' plain concatenation. Symmetric in the pictures.
    """

    def __init__(
        self, features: int, pictures: int, hidden: int, *, outputs: int, dropout: float, unit: bool = True
    ) -> None:
        """``features`` as of ``PairHead``; ``pictures`` is the length of a picture's features, of ``unit`` length."""
        super().__init__()
        # A linear layer is initialised for numbers around 1.
        self._factor = pictures**0.5 if unit else 1.0
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features, hidden)
        self.compare = nn.Linear(2 * pictures, hidden)
        self.out = nn.Linear(2 * hidden, outputs)

    def forward(self, states: Tensor, pictures: Tensor) -> Tensor:
        """(n, d), (n, 2, length), zeros of no picture -> log-odds (n,)."""
        # Near pictures differ by less than half precision says.
        u, v = (pictures.float() if pictures.dtype != torch.float64 else pictures).mul(self._factor).unbind(1)
        compared = torch.cat([(u - v).abs(), u * v], dim=1).to(self.compare.weight.dtype)
        hidden = [torch.tanh(self.dense(self.dropout(states))), torch.tanh(self.compare(self.dropout(compared)))]
        return log_odds(self.out(self.dropout(torch.cat(hidden, dim=1))))


class InteractionHead(nn.Module):
    """A pair head on ``[u; v; |u - v|; u * v]``, averaged over both orders of the pair, so that it is symmetric."""

    def __init__(self, features: int, *, outputs: int, dropout: float) -> None:
        super().__init__()
        self.pair = PairHead(4 * features, features, outputs=outputs, dropout=dropout)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(n, d), (n, d) -> log-odds (n,)."""
        both = [(u - v).abs(), u * v]
        mean: Tensor = (self.pair(torch.cat([u, v, *both], dim=1)) + self.pair(torch.cat([v, u, *both], dim=1))) / 2
        return mean


class AdditiveHead(nn.Module):
    """``W [u; v] + b`` behind dropout, as the published two-tower models have it. For comparison with them only.

    It cannot express similarity: the log-odds are ``a.u + c.v + b`` without any term of both items, so all items rank
    the candidates in the same order, whatever they are. What it can learn is how often an item has a double at all.
    """

    def __init__(self, features: int, *, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * features, outputs)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(n, d), (n, d) -> log-odds (n,); not symmetric."""
        return log_odds(self.out(torch.cat([self.dropout(u), self.dropout(v)], dim=1)))


class MetricHead(nn.Module):
    """A similarity or distance s of two vectors as log-odds, in float32; symmetric.

    ============== ============================ ====================
    similarity     s                            probability
    ============== ============================ ====================
    cosine         u.v / (|u| |v|)              (s + 1) / 2
    inner_product  u.v                          sigmoid(s)
    l1             sum |u - v|                  exp(-s)
    l2             sqrt(sum (u - v)^2)          exp(-s)
    ============== ============================ ====================

    With ``learned`` (loss ``bce``) the probability is ``sigmoid(scale * s + shift)`` instead.

    Attributes:
        similarity: which one.
        log_scale: with ``learned``: logarithm of the scale, so that more similar is never less probable.
        shift: with ``learned``.
    """

    def __init__(self, similarity: Similarity, *, learned: bool) -> None:
        super().__init__()
        self.similarity: Similarity = similarity
        self.learned = learned
        if learned:
            scale, shift = _FIRST_SCALE[similarity]
            self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
            self.shift = nn.Parameter(torch.tensor(shift))

    def compare(self, u: Tensor, v: Tensor) -> Tensor:
        """s of each row of u with the same row of v: (n, d), (n, d) -> (n,) float32."""
        with torch.autocast(u.device.type, enabled=False):  # two digits of a cosine are too few
            u, v = self._prepared(u), self._prepared(v)
            match self.similarity:
                case "l1":
                    return (u - v).abs().sum(1)
                case "l2":
                    # Of a vector of zeros this norm has the gradient zero, where a square root has none.
                    distances: Tensor = torch.linalg.vector_norm(u - v, dim=1)
                    return distances
                case _:
                    return (u * v).sum(1)

    def compare_all(self, u: Tensor, v: Tensor) -> Tensor:
        """Cosine or inner product of every row of u with every row of v: (n, d), (m, d) -> (n, m) float32."""
        with torch.autocast(u.device.type, enabled=False):
            return self._prepared(u) @ self._prepared(v).T

    def _prepared(self, vectors: Tensor) -> Tensor:
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        return functional.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(n, d), (n, d) -> log-odds (n,) float32."""
        s = self.compare(u, v)
        if self.learned:
            return s * self.log_scale.exp() + self.shift
        match self.similarity:
            case "cosine":
                s = s.clamp(_SMALLEST - 1, 1 - _SMALLEST)
                return torch.log1p(s) - torch.log1p(-s)
            case "inner_product":
                return s
            case _:
                s = s.clamp(min=_SMALLEST)
                return -s - torch.log(-torch.expm1(-s))


def outputs_of(axes: Axes) -> int:
    """How many outputs a head has: cross entropy learns two, all else log-odds."""
    return 2 if axes.loss == "ce" else 1


def vector_head(axes: Axes, dimension: int, *, dropout: float) -> nn.Module:
    """The head of ``axes`` on two item vectors.

    Raises:
        UserError: the vectors would be too long.
    """
    if dimension > LARGEST_VECTOR:
        raise UserError(f"Item vectors would have {dimension} dimensions: set projection to at most {LARGEST_VECTOR}.")
    match axes.head:
        case "metric":
            return MetricHead(axes.similarity, learned=axes.loss == "bce")
        case "interaction":
            return InteractionHead(dimension, outputs=outputs_of(axes), dropout=dropout)
        case "additive":
            return AdditiveHead(dimension, outputs=outputs_of(axes), dropout=dropout)
        case other:
            raise ValueError(f"{other} is no head on two vectors")
