"""A model's head on two item vectors as the similarity of a submission: a program that holds its weights.

So vectors alone are submitted, as the challenge asks, also of models whose head is no plain metric.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.matching.families.heads import AdditiveHead, InteractionHead

Floats = NDArray[np.float32]

_BEGINNING = '''"""Similarity of two items of result.jsonl; they are the same where it is the row's threshold or more.

The numbers are the weights of a head that was learnt; the similarity is its log-odds.
"""

import sys
from array import array
from base64 import b64decode
from math import tanh


def numbers(text):
    found = array("f", b64decode(text))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


'''
_COMPUTE = {
    "additive": """
def compute(emb1, emb2):
    return dot(LEFT, emb1) + dot(RIGHT, emb2) + BIAS[0]
""",
    "interaction": """
def log_odds(first, second):
    both = [abs(a - b) for a, b in zip(first, second)] + [a * b for a, b in zip(first, second)]
    features = [*first, *second, *both]
    size = len(features)
    rows = (DENSE[start : start + size] for start in range(0, len(DENSE), size))
    return BIAS[0] + sum(
        out * tanh(dot(row, features) + bias) for row, bias, out in zip(rows, DENSE_BIAS, OUT)
    )


def compute(emb1, emb2):
    return (log_odds(emb1, emb2) + log_odds(emb2, emb1)) / 2
""",
}


@dataclass(frozen=True)
class HeadSimilarity:
    """Log-odds of "same" from two vectors of d numbers.

    Attributes:
        kind: ``additive``, ``left . u + right . v + bias``; or ``interaction``, ``out . tanh(dense f + dense_bias) +
            bias`` of ``f = [u; v; |u - v|; u * v]``, the mean over both orders.
        weights: float32 by name: left, right (d,), bias (1,); or dense (h, 4 d), dense_bias, out (h,), bias (1,).
    """

    kind: Literal["additive", "interaction"]
    weights: Mapping[str, Floats]

    def of(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(n,) of the rows of two arrays (n, d)."""
        u, v = left.astype(np.float64), right.astype(np.float64)
        weights = {name: array.astype(np.float64) for name, array in self.weights.items()}
        if self.kind == "additive":
            return np.asarray(u @ weights["left"] + v @ weights["right"] + weights["bias"][0])
        both = np.concatenate([np.abs(u - v), u * v], axis=1)
        orders = (np.concatenate([*order, both], axis=1) for order in ((u, v), (v, u)))
        hidden = [np.tanh(features @ weights["dense"].T + weights["dense_bias"]) for features in orders]
        return np.asarray((hidden[0] + hidden[1]) @ weights["out"] / 2 + weights["bias"][0])

    def program(self) -> str:
        """``similarity.py``; needs nothing but Python."""
        constants = (
            f'{name.upper()} = numbers("{b64encode(array.astype("<f4").tobytes()).decode()}")\n'
            for name, array in self.weights.items()
        )
        return _BEGINNING + "".join(constants) + "\n" + _COMPUTE[self.kind]


def head_similarity(head: nn.Module, *, symmetric: bool) -> HeadSimilarity | None:
    """What a two-tower's head computes; None of a head that is a metric.

    Args:
        head: on two item vectors.
        symmetric: whether the model averages both orders of a pair.
    """
    if isinstance(head, AdditiveHead):
        weight, bias = _to_log_odds(head.out)
        left, right = np.split(weight, 2)
        if symmetric:
            left = right = np.asarray((left + right) / 2, np.float32)
        return HeadSimilarity("additive", {"left": left, "right": right, "bias": bias})
    if isinstance(head, InteractionHead):
        out, bias = _to_log_odds(head.pair.out)
        dense = {"dense": _array(head.pair.dense.weight), "dense_bias": _array(head.pair.dense.bias)}
        return HeadSimilarity("interaction", {**dense, "out": out, "bias": bias})
    return None


def _to_log_odds(layer: nn.Linear) -> tuple[Floats, Floats]:
    """Weights and bias, (features,) and (1,), of the log-odds of a layer with one output or two; see ``log_odds``."""
    weight, bias = _array(layer.weight), _array(layer.bias)
    return (weight[1] - weight[0], bias[1:] - bias[:1]) if len(weight) == 2 else (weight[0], bias)


def _array(tensor: Tensor | Any) -> Floats:
    return np.asarray(tensor.detach().float().cpu().numpy())
