"""The family ``coca``: each item's text and picture become one vector, after CoCa (Yu et al. 2022).

``sum`` adds the vectors of text and picture, each of unit length; what an item lacks adds nothing. ``cross_attn`` lets
the text's tokens look at the picture's in further layers, and pools what they then say. Letters in shapes: n items,
L tokens of a text, S tokens of a picture, H width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import StatePooling, pool_states
from shopvision.encoders.text_sources import fetch_text
from shopvision.encoders.tokens import TokenBatch
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._parts import FrozenFeatures, Parts, Start
from shopvision.matching.families._pretraining import PretrainingNetwork, Pretrains
from shopvision.matching.families.attention import token_mask
from shopvision.matching.families.coca_pretraining import CoCaPretraining
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.illustrated_items import IllustratedReader
from shopvision.matching.families.image_encoders import (
    LearnablePictureOptions,
    begin_inside,
    cells_and_text,
    fetch_pictures,
)
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.multimodal_layers import MultimodalLayer
from shopvision.matching.families.picture_tokens import PictureTokens, build_picture_tokens, has_picture
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions, TextReading
from shopvision.matching.families.towers import (
    TwoTower,
    TwoTowerArguments,
    TwoTowerOptions,
    build_text_encoder,
    freeze_layers,
    text_inputs,
    text_width,
)
from shopvision.models.card import Architecture

Fusion = Literal["sum", "cross_attn"]


class CoCaOptions(TwoTowerOptions, LearnablePictureOptions):
    """Options.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        frozen_layers: how many of the text encoder's first layers, with the embeddings below, are kept as they are.
        fusion: how text and picture become one vector.
        grid: so many cells along each edge of a picture are looked at, beside the whole.
        multimodal_layers: in which texts look at pictures; of ``sum`` in pretraining alone.
        heads: of these layers; by default as many as the text encoder's.
        ff_multiplier: so many times the width is inside their feed-forward layers.
    """

    family: str = "coca"
    text: str = "wheel:minilm"
    frozen_layers: int = Field(0, ge=0)
    fusion: Fusion = "sum"
    grid: int = Field(3, ge=1, le=16)
    multimodal_layers: int = Field(2, ge=1)
    heads: int | None = Field(None, ge=1)
    ff_multiplier: int = Field(2, ge=1)


class CoCaArguments(TwoTowerArguments):
    """Arguments; beside those below the options of the same names.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how items become sequences.
        pooling: of a text's states.
        image: the image encoder, without classifier.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: StatePooling = "mean"
    image: Architecture
    fusion: Fusion = "sum"
    grid: int = Field(3, ge=1, le=16)
    multimodal_layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    ff_multiplier: int = Field(2, ge=1)


class CoCaTowers(TwoTower):
    """The network.

    Attributes:
        text: a transformers encoder.
        pictures: cells of a picture.
        look: their features to states as wide as a text's.
        layers: in which a text looks at its picture; None where the vectors are summed.
        pooling: of a text's states.
    """

    def __init__(self, text: nn.Module, pictures: PictureTokens, head: nn.Module, arguments: CoCaArguments) -> None:
        """Put together."""
        width = text_width(text)
        super().__init__(head, features=width, projection=arguments.projection)
        self.text, self.pictures, self.pooling = text, pictures, arguments.pooling
        self.look = nn.Sequential(nn.Linear(pictures.width, width), nn.LayerNorm(width))
        self.layers = multimodal_layers(arguments, width) if arguments.fusion == "cross_attn" else None

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of ``IllustratedItems``."""
        tokens = batch.tokens
        states = self.text_states(tokens, tokens.attention_mask)
        pictures, seen = self.picture_states(batch.pictures)
        if self.layers is None:
            worded: Tensor = batch.worded
            text = self.text_vectors(states, tokens) * worded[:, None]
            return text + functional.normalize(pictures[:, 0], dim=1) * seen[:, None]
        for layer in self.layers:
            states = layer(states, pictures, token_mask(tokens.attention_mask), seen[:, None, None, None])
        return pool_states(states, tokens.attention_mask, self.pooling)

    def text_states(self, tokens: TokenBatch, mask: Tensor) -> Tensor:
        """(n, L, H); ``mask`` is (n, L) of tokens, or (n, 1, L, L) to add to attention."""
        inputs = text_inputs(self.text, tokens) | {"attention_mask": mask}
        states: Tensor = self.text(**inputs).last_hidden_state
        return states.to(self.look[0].weight.dtype)  # type: ignore[arg-type] # of a linear layer

    def text_vectors(self, states: Tensor, tokens: TokenBatch) -> Tensor:
        """(n, H) of unit length."""
        return functional.normalize(pool_states(states, tokens.attention_mask, self.pooling), dim=1)

    def picture_states(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S, H), the whole picture first, and (n,) bool, whether there is one."""
        tokens = self.pictures(pictures)
        return self.look(tokens.to(self.look[0].weight.dtype)), has_picture(tokens)

    def prepare_for_scoring(self, device: Any, dtype: Any) -> None:
        """See ``ItemNetwork``; the text encoder alone is cast."""
        self.text.to(dtype)
        super().prepare_for_scoring(device, dtype)
        accelerate_text_encoder(self.text)


def multimodal_layers(arguments: CoCaArguments, width: int) -> nn.ModuleList:
    """The layers in which texts of this width look at pictures."""
    return nn.ModuleList(
        MultimodalLayer(width, arguments.heads, arguments.ff_multiplier) for _ in range(arguments.multimodal_layers)
    )


@register
class CoCa(TwoTowerFamily[CoCaArguments, CoCaOptions], Pretrains):
    """Reads each item's text and picture."""

    name = "coca"
    reads_text = True
    pictures = "pixels"
    arguments = CoCaArguments
    options = CoCaOptions

    def start(self, options: CoCaOptions, texts: TextOptions, items: Sequence[Item]) -> Start[CoCaArguments]:
        """See ``Family``."""
        text, image = fetch_text(options.text), fetch_pictures(options)
        same = options.model_dump(include={"projection", "fusion", "grid", "multimodal_layers", "ff_multiplier"})
        common = cells_and_text(text, image, texts, items, options.heads)
        arguments = CoCaArguments(**self.settled(options), **same, **common)
        return begin_inside(arguments, text, image, arguments.pooling)

    def build(self, arguments: CoCaArguments, parts: Parts) -> ItemNetwork:
        """See ``TwoTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        pictures = build_picture_tokens(arguments.image, parts.preprocessing, arguments.grid)
        head = vector_head(arguments.axes, arguments.projection or text_width(text), dropout=arguments.dropout)
        return CoCaTowers(text, pictures, head, arguments)

    def reader(self, arguments: CoCaArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        return IllustratedReader(arguments.texts.packer(parts.tokenizer, arguments.text_config))

    def freeze(self, network: CoCaTowers, options: CoCaOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return [network.pictures.image.requires_grad_(requires_grad=False)] if options.frozen_image else ()

    def frozen_features(self, network: CoCaTowers, options: CoCaOptions) -> FrozenFeatures | None:
        """See ``Family``."""
        pictures = network.pictures
        return FrozenFeatures(pictures.flat, pictures.count * pictures.width) if options.frozen_image else None

    def flips(self, options: CoCaOptions) -> float:
        """See ``Family``."""
        return options.flips

    def pretraining(
        self, network: CoCaTowers, arguments: CoCaArguments, parts: Parts, kept: ItemTokens
    ) -> PretrainingNetwork:
        """See ``Pretrains``."""
        width = text_width(network.text)
        own = multimodal_layers(arguments, width) if network.layers is None else None
        return CoCaPretraining(network, arguments, parts, kept, own)
