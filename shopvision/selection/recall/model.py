"""The dual tower: pictures and texts in one space of unit vectors (youyuge34/AutoImageSelection, "ALIGN" model).

Letters in shapes: n pictures or texts, d features of a backbone, h dimensions of the common space.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_networks import Pooling, pool

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch
    from shopvision.graph.relations import RelationVectors

HeadName = Literal["linear", "two_linear"]
ScaleName = Literal["plain", "exponential"]


class Head(nn.Module):
    """Features of a backbone to the common space, not normalised.

    ``linear`` is Linear(d, h); ``two_linear`` has a Linear(h, h) behind it, with nothing between, as the published
    picture tower.

    Attributes:
        dimension: h.
    """

    def __init__(self, features: int, dimension: int, name: HeadName) -> None:
        super().__init__()
        self.dimension = dimension
        self.linear = nn.Linear(features, dimension)
        self.second = nn.Linear(dimension, dimension) if name == "two_linear" else None

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, h)."""
        projected: Tensor = self.linear(features)
        return projected if self.second is None else self.second(projected)


class _Tower(nn.Module):
    """A backbone and a head.

    Attributes:
        unit_features: whether the direction of the backbone's features counts alone: they are brought to the length
            sqrt(d) that a linear layer is initialised for.
    """

    def __init__(self, network: nn.Module, head: Head, *, unit_features: bool = False) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.unit_features = unit_features

    def from_features(self, features: Tensor, *, unit: bool = True) -> Tensor:
        """Vectors of features that the backbone gave before, so that a frozen backbone runs once per input.

        Args:
            features: (n, d) as pooled.
            unit: False leaves the projections as long as they are.

        Returns:
            (n, h) float32.
        """
        if self.unit_features:
            features = functional.normalize(_full(features), dim=-1) * math.sqrt(features.shape[-1])
        projected = _full(self.head(features.to(self.head.linear.weight.dtype)))
        return functional.normalize(projected, dim=-1) if unit else projected


class ImageTower(_Tower):
    """Pictures to vectors: an image network without classifier, the head."""

    def forward(self, images: Tensor, *, unit: bool = True) -> Tensor:
        """(n, 3, H, W), normalised as the card says -> (n, h) float32, of unit length unless told otherwise."""
        return self.from_features(self.network(images), unit=unit)


class TextTower(_Tower):
    """Texts to vectors: a transformers encoder, its pooling, the head."""

    def __init__(self, network: nn.Module, head: Head, *, pooling: Pooling, unit_features: bool = False) -> None:
        super().__init__(network, head, unit_features=unit_features)
        self.pooling: Pooling = pooling
        # Encoders without token types (DistilBERT) do not take them.
        self._takes_token_types = hasattr(network.config, "type_vocab_size")

    def features(self, tokens: TokenBatch) -> Tensor:
        """The backbone's pooled features, (n, d)."""
        inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = tokens.token_type_ids
        return pool(self.network(**inputs), tokens.attention_mask, self.pooling)

    def forward(self, tokens: TokenBatch, *, unit: bool = True) -> Tensor:
        """Tokens of n texts -> (n, h) float32, of unit length unless told otherwise."""
        return self.from_features(self.features(tokens), unit=unit)


class DualTower(nn.Module):
    """Both towers, the scale of their cosines, and the relations that a knowledge graph taught, if any.

    Attributes:
        logit_scale: () as it is learnt: the factor itself (``plain``, as published) or its logarithm.
        relations: used in training alone.
    """

    def __init__(
        self,
        image: ImageTower,
        text: TextTower,
        *,
        scale: ScaleName,
        initial_scale: float,
        relations: RelationVectors | None = None,
    ) -> None:
        """Put a model together.

        Args:
            image: of pictures.
            text: of texts.
            scale: how the factor of cosines is learnt.
            initial_scale: the factor at first.
            relations: of the graph.
        """
        super().__init__()
        self.image = image
        self.text = text
        self._is_logarithm = scale == "exponential"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(initial_scale) if self._is_logarithm else initial_scale))
        self.relations = relations

    def factor(self) -> Tensor:
        """What cosines are multiplied with, ()."""
        return self.logit_scale.exp() if self._is_logarithm else self.logit_scale


def _full(values: Tensor) -> Tensor:
    """At least float32: in half precision lengths would be off by a thousandth."""
    return values if values.dtype == torch.float64 else values.float()
