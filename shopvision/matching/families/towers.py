"""Pair models: one tower that reads both items as one sequence, two towers that give each item a vector.

Letters in shapes: n pairs or items, L tokens, H width of the text encoder, d features of a picture or dimensions of an
item vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_backbone import Pooling, pool
from shopvision.matching.families.heads import MetricHead, PictureComparingHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopvision.encoders.tokens import TokenBatch
    from shopvision.images.preprocessing import Preprocessing

LayerPooling = Literal["cat", "avg"]


class OneTower(nn.Module):
    """An encoder that reads both items as one sequence, and a pair head on its states.

    Pictures enter as features behind a projection, in place of the word embeddings of two tokens; position, token type,
    layer norm and dropout are those of any token. A ``PictureComparingHead`` reads them once more.

    Attributes:
        text: a transformers encoder.
        head: states, and pictures where it compares them, to log-odds.
        image_projection: features of a picture to a word embedding; None for models of text alone.
    """

    def __init__(
        self,
        text: nn.Module,
        head: nn.Module,
        *,
        pooling: Pooling = "cls",
        layers: Sequence[int] = (1,),
        layer_pooling: LayerPooling = "cat",
        image_features: int | None = None,
    ) -> None:
        """Put together.

        Args:
            pooling: ``cls``: the state of the first token; or the ``mean`` of all tokens.
            layers: which layers' states the head sees, counted from the top: 1 is the last.
            layer_pooling: several layers are concatenated (``cat``) or averaged (``avg``).
            image_features: d; None for models of text alone.
        """
        super().__init__()
        self.text = text
        self.head = head
        self.pooling: Pooling = pooling
        self.layers = tuple(layers)
        self.layer_pooling: LayerPooling = layer_pooling
        self.image_projection: nn.Linear | None = None
        if image_features is not None:
            words: nn.Embedding = text.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
            self.image_projection = nn.Linear(image_features, words.embedding_dim)
        self._takes_token_types = _takes_token_types(text)

    def forward(self, tokens: TokenBatch, image_features: Tensor | None = None, slots: Tensor | None = None) -> Tensor:
        """Log-odds of "same".

        Args:
            tokens: of n pairs.
            image_features: (n, 2, d) of unit length, of both items' pictures; zeros where an item has none, so that
                only the projection's bias is left of it: the learned vector for "no picture".
            slots: (n, 2) int64, the positions of the picture tokens.

        Returns:
            (n,).
        """
        inputs: dict[str, Tensor | bool] = {"attention_mask": tokens.attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = tokens.token_type_ids
        if self.image_projection is None or image_features is None or slots is None:
            inputs["input_ids"] = tokens.input_ids
        else:
            inputs["inputs_embeds"] = self._with_pictures(tokens.input_ids, image_features, slots)
        if self.layers == (1,):
            return self._logits(pool(self.text(**inputs), tokens.attention_mask, self.pooling), image_features)
        from transformers.modeling_outputs import BaseModelOutput

        outputs = self.text(**inputs, output_hidden_states=True)
        states = [
            pool(BaseModelOutput(last_hidden_state=outputs.hidden_states[-layer]), tokens.attention_mask, self.pooling)
            for layer in self.layers
        ]
        together = torch.cat(states, 1) if self.layer_pooling == "cat" else torch.stack(states).mean(0)
        return self._logits(together, image_features)

    def _with_pictures(self, input_ids: Tensor, image_features: Tensor, slots: Tensor) -> Tensor:
        embeddings: Tensor = self.text.get_input_embeddings()(input_ids)  # type: ignore[operator] # as above
        projection = self.image_projection
        assert projection is not None  # noqa: S101 - for the type checker
        projected = projection(image_features.to(projection.weight.dtype)).to(embeddings.dtype)
        return embeddings.scatter(1, slots.unsqueeze(2).expand_as(projected), projected)

    def _logits(self, states: Tensor, image_features: Tensor | None) -> Tensor:
        compares = isinstance(self.head, PictureComparingHead)
        logits: Tensor = self.head(states, image_features) if compares else self.head(states)
        return logits


class TwoTower(nn.Module):
    """One encoder for both items, of text or of pictures, an optional projection, and a head on two item vectors.

    Attributes:
        text: a transformers encoder, or None.
        image: a timm network without classifier, or None.
        projection: features to vectors; None where the features are the vectors.
        head: two vectors to log-odds.
        dimension: d.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        head: nn.Module,
        *,
        features: int,
        text: nn.Module | None = None,
        image: nn.Module | None = None,
        pooling: Pooling = "mean",
        projection: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Put together; either ``text`` or ``image`` is given.

        Args:
            features: the encoder's pooled features.
            pooling: of the text encoder.
            projection: d, where it is not ``features``.
            preprocessing: of pictures: their mean and standard deviation.
        """
        super().__init__()
        self.text = text
        self.image = image
        self.pooling: Pooling = pooling
        self.dimension = projection or features
        self.projection = None if projection is None else nn.Linear(features, projection)
        self.head = head
        self._unit = isinstance(head, MetricHead) and head.similarity == "cosine"
        if text is not None:
            self._takes_token_types = _takes_token_types(text)
        if preprocessing is not None:
            self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
            self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    def encode(self, tokens: TokenBatch | None = None, pictures: Tensor | None = None) -> Tensor:
        """Item vectors.

        Args:
            tokens: of n items, where the model reads text.
            pictures: (n, height, width, 3) uint8 as ``shopvision.images.preprocessing.prepare`` makes them, where it
                reads pictures.

        Returns:
            (n, d) float32; of unit length where the head takes cosines, so that inner products are cosines.
        """
        return self.from_features(self.features(tokens, pictures))

    def from_features(self, features: Tensor) -> Tensor:
        """Item vectors of what ``features`` gave: training keeps those of an encoder that stays as it is."""
        vectors = features if self.projection is None else self.projection(features)
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        return functional.normalize(vectors, dim=1) if self._unit else vectors

    def features(self, tokens: TokenBatch | None = None, pictures: Tensor | None = None) -> Tensor:
        """What the encoder says of items, pooled; see ``encode`` for the arguments."""
        if self.text is not None:
            if tokens is None:
                raise ValueError("a model of texts needs tokens")
            inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
            if self._takes_token_types:
                inputs["token_type_ids"] = tokens.token_type_ids
            return pool(self.text(**inputs), tokens.attention_mask, self.pooling)
        if self.image is None or pictures is None:
            raise ValueError("a model of pictures needs pictures")
        pixels = (pictures.to(self.mean.dtype) / 255 - self.mean) / self.std
        features: Tensor = self.image(pixels.permute(0, 3, 1, 2))
        return features

    def pair_logits(self, u: Tensor, v: Tensor) -> Tensor:
        """Log-odds of "same": (n, d), (n, d) -> (n,)."""
        logits: Tensor = self.head(u, v)
        return logits


def _takes_token_types(text: nn.Module) -> bool:
    """Encoders without token types (DistilBERT, ModernBERT) do not take them."""
    return hasattr(text.config, "type_vocab_size")
