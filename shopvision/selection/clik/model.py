"""CLIK: topics and pictures in one space of unit vectors, and a query that has seen what pictures look like.

After Contrastive Learning for topic-dependent Image ranKing (iloveslowfood/CLIK, revision e6b17c0). Letters in shapes:
n topics or pictures, k pictures of each topic, d features of a backbone, h dimensions of the common space, M rows of
the memory bank. The names of the tensors are those of the published checkpoints.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_networks import Pooling, pool
from shopvision.errors import JobError

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch

Query = Literal["group", "virtual", "fusion", "topic"]


class Projection(nn.Module):
    """Features of a backbone to the common space: Linear(d, d), ReLU, Linear(d, h)."""

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(features, features)
        self.linear_out = nn.Linear(features, dimension)

    def forward(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, h)."""
        projected: Tensor = self.linear_out(functional.relu(self.linear_in(features)))
        return projected


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; in half precision the length would be off by a thousandth."""
    return functional.normalize(vectors if vectors.dtype == torch.float64 else vectors.float(), dim=-1)


class _Tower(nn.Module):
    """A backbone ``enc`` and a projection ``proj`` to unit vectors."""

    def __init__(self, backbone: nn.Module, features: int, dimension: int, *, unit_features: bool = False) -> None:
        super().__init__()
        self.enc = backbone
        self.proj = Projection(features, dimension)
        self.unit_features = unit_features

    def from_features(self, features: Tensor) -> Tensor:
        """Unit vectors of features that the backbone gave before, so that a frozen backbone runs once per input.

        Args:
            features: (n, d) as pooled; with ``unit_features`` they may have any length, because only their direction
                counts: unit vectors of it are scaled to the length sqrt(d) that a projection is initialised for.

        Returns:
            (n, h) float32 of unit length.
        """
        if self.unit_features:
            features = _unit(features) * math.sqrt(features.shape[-1])
        return _unit(self.proj(features.to(self.proj.linear_in.weight.dtype)))


class TextTower(_Tower):
    """Topics to unit vectors: a transformers encoder, its pooling, the projection."""

    def __init__(
        self, backbone: nn.Module, features: int, dimension: int, *, pooling: Pooling, unit_features: bool = False
    ) -> None:
        super().__init__(backbone, features, dimension, unit_features=unit_features)
        self.pooling: Pooling = pooling
        # Encoders without token types (DistilBERT) do not take them.
        self._takes_token_types = hasattr(backbone.config, "type_vocab_size")

    def features(self, tokens: TokenBatch) -> Tensor:
        """The backbone's pooled features, (n, d)."""
        inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = tokens.token_type_ids
        return pool(self.enc(**inputs), tokens.attention_mask, self.pooling)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Tokens of n topics -> (n, h) float32 of unit length."""
        return self.from_features(self.features(tokens))


class ImageTower(_Tower):
    """Pictures to unit vectors: a timm network without classifier, the projection."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W), normalised as the card says -> (n, h) float32 of unit length."""
        return self.from_features(self.enc(images))


class Clik(nn.Module):
    """Both towers, the memory bank and the query that pictures are compared with.

    A training step replaces the bank by the pictures of its matching part, before it asks for compatibilities;
    evaluation and use leave it as the last step made it.

    Attributes:
        memory_bank: (M, h) float32 unit vectors: the pictures of the last training step's matching part.
        query: what a topic's pictures are compared with: the ``group`` query; the ``virtual`` image alone (an
            ablation); both topic and virtual image, whose cosines are weighed (``fusion``); or the ``topic`` vector
            itself (the methods CLIK is compared with).
    """

    memory_bank: Tensor

    def __init__(self, txt_encoder: TextTower, img_encoder: ImageTower, bank_size: int, query: Query = "group") -> None:
        super().__init__()
        self.txt_encoder = txt_encoder
        self.img_encoder = img_encoder
        self.query: Query = query
        dimension = img_encoder.proj.linear_out.out_features
        # Weights that no gradient reaches would stop distributed training.
        self.agg = nn.Linear(2 * dimension, dimension).requires_grad_(query == "group")
        # The log-odds of the topic's share, one half at first.
        self.topic_share = nn.Parameter(torch.zeros(())) if query == "fusion" else None
        self.register_buffer("memory_bank", functional.normalize(torch.randn(bank_size, dimension)))

    def virtual_image(self, topic_vectors: Tensor) -> Tensor:
        """The mean picture of the bank as the topics see it: ``norm(softmax(z_s Bank^T) Bank)``, no temperature.

        Args:
            topic_vectors: (n, h) of unit length.

        Returns:
            (n, h) of unit length.
        """
        attention = (topic_vectors @ self.memory_bank.T).softmax(dim=1)
        return functional.normalize(attention @ self.memory_bank, dim=1)

    def group_query(self, topic_vectors: Tensor) -> Tensor:
        """Topic and virtual image together: ``norm(agg([z_s ; z_v]))``, (n, h) -> (n, h) of unit length."""
        both = torch.cat([topic_vectors, self.virtual_image(topic_vectors)], dim=1)
        return functional.normalize(self.agg(both), dim=1)

    def fused_query(self, topic_vectors: Tensor) -> Tensor:
        """Topic and virtual image weighed by one learnt share: ``w z_s + (1 - w) z_v``, (n, h) -> (n, h).

        A picture's product with it is ``w z_s . z_j + (1 - w) z_v . z_j``, the fusion of two cosines: scores need
        neither a network that sees topic and picture together, nor more than one vector of each. Its length is at most
        1 and not brought to 1, which would undo the weighing of one topic beside another.
        """
        if self.topic_share is None:
            raise AssertionError("a query of fusion has a share")
        share = self.topic_share.sigmoid()
        return share * topic_vectors + (1 - share) * self.virtual_image(topic_vectors)

    def query_vectors(self, topic_vectors: Tensor) -> Tensor:
        """What the topics' pictures are compared with, as ``query`` says: (n, h) -> (n, h) float32.

        Of unit length, and of at most that for ``fusion``.
        """
        with torch.autocast(topic_vectors.device.type, enabled=False):  # three digits would be lost
            match self.query:
                case "group":
                    return self.group_query(topic_vectors)
                case "virtual":
                    return self.virtual_image(topic_vectors)
                case "fusion":
                    return self.fused_query(topic_vectors)
                case "topic":
                    return topic_vectors

    def compatibility(self, topic_vectors: Tensor, image_vectors: Tensor) -> Tensor:
        """How well each picture of a topic fits it: the product of query and picture.

        Args:
            topic_vectors: (n, h) of unit length.
            image_vectors: (n, k, h) of unit length.

        Returns:
            (n, k), -1 to 1.
        """
        queries = self.query_vectors(topic_vectors)
        with torch.autocast(queries.device.type, enabled=False):
            return torch.einsum("nh,nkh->nk", queries, image_vectors)

    @torch.no_grad()
    def replace_bank(self, image_vectors: Tensor) -> None:
        """Take new pictures into the bank instead of all old ones.

        Args:
            image_vectors: (M, h) of unit length, those of all processes.

        Raises:
            JobError: not as many as the bank has rows.
        """
        if image_vectors.shape != self.memory_bank.shape:
            raise JobError(
                f"The memory bank holds {len(self.memory_bank)} pictures, the step brings {len(image_vectors)}: make "
                "the bank as large as the matching batch of all processes together."
            )
        self.memory_bank.copy_(image_vectors)
