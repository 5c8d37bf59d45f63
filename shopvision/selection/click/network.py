"""The network that says how attractive a picture of an item is: the published one, and a variant without its flaws.

Letters in shapes: B pictures, K entities of an item (padded), d dimensions of the recall model's vectors.

Published (youyuge34/AutoImageSelection): two pictures of one item go through the same network with the same context;
``P(a better) = sigmoid(s_a - s_b)``. Its attention weights are those of DIN (Zhou et al. 2018, "Deep Interest Network
for Click-Through Rate Prediction"): no softmax, and Dice as activation, whose batch statistics count padding too.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

Statistics = Literal["batch", "layer"]
Weights = Literal["plain", "normalised"]

DICE_EPSILON = 1e-9  # published; of the batch norm inside
ATTENTION_DROPOUT = 0.2
LIKENESS_SCALE = 10.0  # of cosines, which differ little between pictures
RECALL_WEIGHT = 0.5  # of the scaled cosine with the text, at first


class NetworkArguments(BaseModel):
    """What ``ClickNetwork`` is built from; the defaults are those of the published network.

    Attributes:
        dimension: d, of the recall model's vectors.
        attention_widths: of the two inner layers that weigh an entity.
        head_widths: of the two inner layers above.
        dropout: of entities' keys and of the layers above, in training.
        weights: of the entities: ``plain`` scores, as published, or ``normalised`` to the sum 1 over those there are.
        statistics: what the activation inside the attention is normalised by: the ``batch``, as published, or each
            ``layer``'s own values, so that a picture's score does not depend on what it was trained beside.
        products: whether the layers above also see picture x text and picture x entities, element by element.
        scaled: whether what the layers above see is brought to elements of about 1: those of a vector of length 1 are
            small beside a layer's own bias.
        likeness: whether the score also has, weighed and added, how like the picture is to the text, to the entities'
            pictures and to their names; at first it is that of the recall model alone, times a factor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dimension: int = Field(gt=0)
    attention_widths: tuple[int, int] = (64, 16)
    head_widths: tuple[int, int] = (512, 256)
    dropout: float = Field(0.1, ge=0, lt=1)
    weights: Weights = "plain"
    statistics: Statistics = "batch"
    products: bool = False
    scaled: bool = False
    likeness: bool = False


class Dice(nn.Module):
    """``x * sigmoid(norm(x))``: the activation of DIN with its alpha at zero, where the published code leaves it."""

    def __init__(self, width: int, statistics: Statistics) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(width, eps=DICE_EPSILON) if statistics == "batch" else nn.LayerNorm(width)

    def forward(self, values: Tensor) -> Tensor:
        """(B, K, width) -> the same; batch statistics are over all B x K positions."""
        rows: Tensor = self.norm(values.flatten(0, 1))
        return values * torch.sigmoid(rows.view_as(values))


class EntityAttention(nn.Module):
    """What an item's entities say, weighed for one picture."""

    def __init__(self, arguments: NetworkArguments) -> None:
        super().__init__()
        wide, narrow = arguments.attention_widths
        self.first = nn.Linear(4 * arguments.dimension, wide)
        self.dice = Dice(wide, arguments.statistics)
        self.dropout = nn.Dropout(ATTENTION_DROPOUT)
        self.second = nn.Linear(wide, narrow)
        self.score = nn.Linear(narrow, 1)
        self._normalised = arguments.weights == "normalised"
        for layer in (self.first, self.second, self.score):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, pictures: Tensor, keys: Tensor, counts: Tensor) -> Tensor:
        """Weigh the keys for each picture.

        Args:
            pictures: (B, d), the queries.
            keys: (B, K, d); those at positions from the item's count on are padding, whatever they hold.
            counts: (B,) int64, entities of the item, 0 to K.

        Returns:
            (B, d), exactly zeros where there is no entity.
        """
        queries = pictures.unsqueeze(1).expand_as(keys)
        features = torch.cat([queries, keys, queries - keys, queries * keys], dim=2)
        hidden = self.dropout(self.dice(self.first(features)))
        scores = self.score(self.second(hidden)).squeeze(2)
        there = torch.arange(keys.shape[1], device=keys.device) < counts.unsqueeze(1)
        if self._normalised:  # not by infinity, whose softmax has no gradient where nothing is there
            scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(dim=1)
        weights = scores * there
        pooled: Tensor = (weights.unsqueeze(2) * keys).sum(dim=1)
        return pooled


class ClickNetwork(nn.Module):
    """Scores of pictures: the more clicks, the higher. Differences of one item's scores are logits."""

    def __init__(self, arguments: NetworkArguments) -> None:
        """With random weights; see ``NetworkArguments``."""
        super().__init__()
        d = arguments.dimension
        first, second = arguments.head_widths
        self.arguments = arguments
        self.key = nn.Linear(2 * d, d)
        self.attention = EntityAttention(arguments)
        self.first = nn.Linear((5 if arguments.products else 3) * d, first)
        self.second = nn.Linear(first, second)
        self.score = nn.Linear(second, 1)
        self.dropout = nn.Dropout(arguments.dropout)
        self.likeness = nn.Linear(3, 1, bias=False) if arguments.likeness else None
        if self.likeness is not None:
            nn.init.zeros_(self.likeness.weight)
            nn.init.constant_(self.likeness.weight[:, 0], RECALL_WEIGHT)

    def forward(self, pictures: Tensor, texts: Tensor, entities: Tensor, counts: Tensor) -> Tensor:
        """Scores of B pictures, each with the context of its item.

        Args:
            pictures: (B, d) of the recall model's image tower.
            texts: (B, d) of its text tower; zeros where an item has no text.
            entities: (B, K, 2d): mean vector of the entity's pictures, then vector of its name; K may be 0.
            counts: (B,) int64 entities of each item.

        Returns:
            (B,).
        """
        keys = self.dropout(self.key(entities))
        known = self.attention(pictures, keys, counts) if entities.shape[1] else torch.zeros_like(pictures)
        inputs = [pictures, texts, known]
        if self.arguments.products:
            # Of vectors of length 1 the products are small; times d they are as large as a vector's elements are.
            scale = self.arguments.dimension**0.5
            inputs += [pictures * texts * scale, pictures * known * scale]
        seen = torch.cat(inputs, dim=1)
        if self.arguments.scaled:
            seen = seen * self.arguments.dimension**0.5
        hidden = torch.relu(self.dropout(self.first(seen)))
        hidden = torch.relu(self.dropout(self.second(hidden)))
        scores: Tensor = self.score(hidden)
        if self.likeness is not None:
            scores = scores + self.likeness(_likeness(pictures, texts, entities, counts))
        return scores.squeeze(1)


def _likeness(pictures: Tensor, texts: Tensor, entities: Tensor, counts: Tensor) -> Tensor:
    """(B, 3) scaled cosines of a picture: with the text, and on average with entities' pictures and names; else 0."""
    there = torch.arange(entities.shape[1], device=entities.device) < counts.unsqueeze(1)
    shares = there.to(pictures.dtype) / counts.clamp(min=1).unsqueeze(1)
    seen, named = entities.chunk(2, dim=2)
    means = [
        ((functional.normalize(of, dim=2) * pictures.unsqueeze(1)).sum(dim=2) * shares).sum(dim=1)
        for of in (seen, named)
    ]
    return torch.stack([(pictures * texts).sum(dim=1), *means], dim=1) * LIKENESS_SCALE
