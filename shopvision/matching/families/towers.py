"""What families are built from: an encoder that reads both items' texts, and towers that give each item a vector.

Letters in shapes: n pairs or items, L tokens, H width of the text encoder, d dimensions of an item vector.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import Pooling, StatePooling, build_text, pool, pool_states
from shopvision.errors import UserError
from shopvision.matching.families._network import ItemNetwork, PairNetwork
from shopvision.matching.families._parts import FamilyArguments, FamilyOptions
from shopvision.matching.families.heads import LARGEST_VECTOR, MetricHead

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch

LayerPooling = Literal["cat", "avg"]
_LAYER = re.compile(r"\blayers?\.(\d+)\.")


class OneTower(PairNetwork):
    """An encoder that reads both items as one sequence, and a head on its states.

    Attributes:
        text: a transformers encoder.
        head: states to log-odds.
    """

    def __init__(
        self,
        text: nn.Module,
        head: nn.Module,
        *,
        pooling: StatePooling = "cls",
        layers: Sequence[int] = (1,),
        layer_pooling: LayerPooling = "cat",
    ) -> None:
        """Put together.

        Args:
            pooling: ``cls``: the state of the first token; or the ``mean`` of all tokens.
            layers: which layers' states the head sees, counted from the top: 1 is the last.
            layer_pooling: several layers are concatenated (``cat``) or averaged (``avg``).
        """
        super().__init__()
        self.text = text
        self.head = head
        self.pooling: StatePooling = pooling
        self.layers = tuple(layers)
        self.layer_pooling: LayerPooling = layer_pooling

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of a ``TokenBatch``."""
        logits: Tensor = self.head(self.states(batch))
        return logits

    def states(self, tokens: TokenBatch, embeddings: Tensor | None = None) -> Tensor:
        """What the head sees of n sequences: (n, H), or (n, H times the layers).

        Args:
            tokens: of the pairs.
            embeddings: (n, L, H) in place of those of the tokens' words.
        """
        inputs = text_inputs(self.text, tokens, embeddings)
        if self.layers == (1,):
            return pool(self.text(**inputs), tokens.attention_mask, self.pooling)
        outputs = self.text(**inputs, output_hidden_states=True)
        states = [
            pool_states(outputs.hidden_states[-layer], tokens.attention_mask, self.pooling) for layer in self.layers
        ]
        return torch.cat(states, 1) if self.layer_pooling == "cat" else torch.stack(states).mean(0)

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``PairNetwork``."""
        super().prepare_for_scoring(device, dtype)
        accelerate_text_encoder(self.text, pooling=self.pooling, layers=self.layers)


class TwoTowerOptions(FamilyOptions):
    """Options of families whose items have vectors.

    Attributes:
        projection: length of the vectors where it is not the encoder's.
    """

    projection: int | None = Field(None, ge=2, le=LARGEST_VECTOR)


class TwoTowerArguments(FamilyArguments):
    """Arguments of families whose items have vectors.

    Attributes:
        projection: dimensions of item vectors, where they are not the encoder's own.
    """

    projection: int | None = Field(None, gt=0, le=LARGEST_VECTOR)


class TwoTower(ItemNetwork):
    """One encoder for both items, an optional projection, and a head on two item vectors.

    Attributes:
        projection: features to vectors; None where the features are the vectors.
    """

    def __init__(self, head: nn.Module, *, features: int, projection: int | None = None) -> None:
        """Put together.

        Args:
            features: length of what ``features`` gives.
            projection: d, where it is not ``features``.
        """
        super().__init__()
        self.dimension = projection or features
        self.projection = None if projection is None else nn.Linear(features, projection)
        self.head = head
        self._unit = isinstance(head, MetricHead) and head.similarity == "cosine"

    @abstractmethod
    def features(self, batch: Any) -> Tensor:
        """What the encoder says of items, pooled: (n, features)."""

    def encode(self, batch: Any) -> Tensor:
        """See ``ItemNetwork``: of unit length where the head takes cosines, so that inner products are cosines."""
        features = self.features(batch)
        vectors = features if self.projection is None else self.projection(features)
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        return functional.normalize(vectors, dim=1) if self._unit else vectors


# -- text encoders ----------------------------------------------------------------------------------------------------


def build_text_encoder(config: Mapping[str, Any], pooling: Pooling) -> nn.Module:
    """A transformers encoder, weights still random; without a pooler that is not read.

    Weights that no gradient reaches would stop distributed training.
    """
    return build_text({**config, "add_pooling_layer": pooling == "pooler"})


def read_weights(tensors: Mapping[str, Tensor], pooling: Pooling) -> dict[str, Tensor]:
    """Those of a pretrained text encoder's tensors that ``build_text_encoder`` has a place for."""
    unread = () if pooling == "pooler" else ("pooler.",)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(unread)}


def text_width(text: nn.Module) -> int:
    """H of a transformers encoder."""
    width: int = text.config.hidden_size  # type: ignore[union-attr,assignment] # transformers is untyped
    return width


def text_inputs(text: nn.Module, tokens: TokenBatch, embeddings: Tensor | None = None) -> dict[str, Tensor]:
    """Keyword arguments of a transformers encoder; see ``OneTower.states``."""
    inputs = {"attention_mask": tokens.attention_mask}
    if hasattr(text.config, "type_vocab_size"):  # others (DistilBERT, ModernBERT) do not take token types
        inputs["token_type_ids"] = tokens.token_type_ids
    if embeddings is None:
        return {"input_ids": tokens.input_ids, **inputs}
    return {"inputs_embeds": embeddings, **inputs}


def layer_depths(encoder: nn.Module) -> dict[str, int]:
    """Parameter name -> 0 for the embeddings, 1 for the first layer, ..., the last layer's number for what is above."""
    found = {name: _LAYER.search(name) for name, _ in encoder.named_parameters()}
    numbers = {name: int(match[1]) + 1 for name, match in found.items() if match}
    top = max(numbers.values(), default=0)
    return {name: numbers.get(name, 0 if "embed" in name else top) for name in found}


def freeze_layers(text: nn.Module, layers: int) -> None:
    """Keep the first ``layers`` layers of an encoder, with the embeddings below, as they are; 0 keeps nothing.

    Raises:
        UserError: it has fewer.
    """
    if not layers:
        return
    depths = layer_depths(text)
    if max(depths.values()) < layers:
        raise UserError(f"model.frozen_layers = {layers}: the text encoder has {max(depths.values())} layers.")
    for name, weight in text.named_parameters():
        if depths[name] <= layers:
            weight.requires_grad = False
