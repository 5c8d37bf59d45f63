"""The family ``k3m``: title, attributes and picture of an item become one vector, after K3M (Xu et al. 2021).

Each modality is encoded by itself and looks at the two others; what it says then is fused, pooled, and joined by what
its attributes say as triples. Smaller than published, so that it trains on a laptop: one text encoder reads titles and
attributes, and a picture is the whole and the regions that a detector found, or else the cells of a grid. Letters in
shapes: n items, H width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import nn

from shopvision.encoders.text_networks import StatePooling
from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._parts import FrozenFeatures, Parts, Start
from shopvision.matching.families._pretraining import PretrainingNetwork, Pretrains
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.image_encoders import begin_inside, cells_and_text
from shopvision.matching.families.k3m_layers import Fusion
from shopvision.matching.families.k3m_network import K3MNetwork
from shopvision.matching.families.k3m_pretraining import K3MPretraining
from shopvision.matching.families.k3m_reading import K3MReader, ReadItems
from shopvision.matching.families.picture_tokens import build_picture_tokens
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions, TextReading
from shopvision.matching.families.towers import (
    TwoTowerArguments,
    TwoTowerOptions,
    build_text_encoder,
    freeze_layers,
    text_width,
)
from shopvision.models.card import Architecture
from shopvision.training.pretrained import fetch_image


class K3MOptions(TwoTowerOptions):
    """Options.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        image: image encoder of timm, see ``shopvision.models.importers.fetch``.
        frozen_layers: how many of the text encoder's first layers, with the embeddings below, are kept as they are.
        frozen_image: keep the image encoder as it is; its outputs are computed once.
        interactive_fusion: how a modality's own states and those that looked at others become one.
        grid: so many cells along each edge of a picture are looked at, beside the whole, where no detector found
            regions; the features of regions are those of the cells that they lie in.
        picture_layers: in which the cells of a picture look at each other.
        co_layers: in which two modalities look at each other.
        heads: of these layers; by default as many as the text encoder's.
    """

    family: str = "k3m"
    text: str = "wheel:minilm"
    image: str = "wheel:efficientnet-lite0"
    frozen_layers: int = Field(0, ge=0)
    frozen_image: bool = True
    interactive_fusion: Fusion = "soft"
    grid: int = Field(3, ge=1, le=16)
    picture_layers: int = Field(1, ge=0)
    co_layers: int = Field(1, ge=1)
    heads: int | None = Field(None, ge=1)


class K3MArguments(TwoTowerArguments):
    """Arguments; beside those below the options of the same names.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how items become sequences.
        pooling: of a title's and of the attributes' states.
        image: the image encoder, without classifier.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: StatePooling = "mean"
    image: Architecture
    interactive_fusion: Fusion = "soft"
    grid: int = Field(3, ge=1, le=16)
    picture_layers: int = Field(1, ge=0)
    co_layers: int = Field(1, ge=1)
    heads: int = Field(2, ge=1)


@register
class K3M(TwoTowerFamily[K3MArguments, K3MOptions], Pretrains):
    """Reads each item's title, attributes and picture, as far as there are any."""

    name = "k3m"
    reads_text = True
    pictures = "pixels"
    arguments = K3MArguments
    options = K3MOptions

    def start(self, options: K3MOptions, texts: TextOptions, items: Sequence[Item]) -> Start[K3MArguments]:
        """See ``Family``."""
        text, image = fetch_text(options.text), fetch_image(options.image)
        # Regions are shares of the whole picture, which a crop would shift.
        whole = image.preprocessing.model_copy(update={"resize_mode": "squash", "crop_fraction": 1.0})
        image = replace(image, preprocessing=whole)
        same = {"projection", "interactive_fusion", "grid", "picture_layers", "co_layers"}
        common = cells_and_text(text, image, texts, items, options.heads)
        arguments = K3MArguments(**self.settled(options), **options.model_dump(include=same), **common)
        return begin_inside(arguments, text, image, arguments.pooling)

    def build(self, arguments: K3MArguments, parts: Parts) -> ItemNetwork:
        """See ``TwoTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        width = text_width(text)
        if width % arguments.heads:
            raise UserError(f"{arguments.heads} heads do not share a width of {width} evenly: set model.heads.")
        pictures = build_picture_tokens(arguments.image, parts.preprocessing, arguments.grid)
        head = vector_head(arguments.axes, arguments.projection or width, dropout=arguments.dropout)
        return K3MNetwork(text, pictures, head, arguments)

    def reader(self, arguments: K3MArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        texts = arguments.texts
        return K3MReader(texts.packer(parts.tokenizer, arguments.text_config), texts.prefix)

    def freeze(self, network: K3MNetwork, options: K3MOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return [network.pictures.image.requires_grad_(requires_grad=False)] if options.frozen_image else ()

    def frozen_features(self, network: K3MNetwork, options: K3MOptions) -> FrozenFeatures | None:
        """See ``Family``."""
        pictures = network.pictures
        return FrozenFeatures(pictures.flat, pictures.count * pictures.width) if options.frozen_image else None

    def pretraining(
        self, network: K3MNetwork, arguments: K3MArguments, parts: Parts, kept: ReadItems  # noqa: ARG002 - not needed
    ) -> PretrainingNetwork:  # fmt: skip
        """See ``Pretrains``."""
        return K3MPretraining(network, parts, kept)
