"""The family ``text_two_tower``: each item's text alone becomes a vector, for blocking, search and cascades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import Pooling, pool
from shopvision.encoders.text_sources import fetch_text
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextItemReader, TextOptions, TextReading
from shopvision.matching.families.text_stages import TextStages
from shopvision.matching.families.towers import (
    TwoTower,
    TwoTowerArguments,
    TwoTowerOptions,
    build_text_encoder,
    freeze_layers,
    read_weights,
    text_inputs,
    text_width,
)


class TextTwoTowerOptions(TwoTowerOptions):
    """Options.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``; its pooling is its own.
        frozen_layers: how many of its first layers, with the embeddings below, are kept as they are.
    """

    family: str = "text_two_tower"
    text: str = "wheel:minilm"
    frozen_layers: int = Field(0, ge=0)


class TextTwoTowerArguments(TwoTowerArguments):
    """Arguments.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how items become sequences.
        pooling: of the encoder's states.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: Pooling = "mean"


class TextTowers(TwoTower):
    """Towers of texts.

    Attributes:
        text: a transformers encoder.
    """

    def __init__(
        self, text: nn.Module, head: nn.Module, *, pooling: Pooling, projection: int | None, parts: int = 1
    ) -> None:
        """Put together; see ``TextTwoTowerArguments``. Features are ``parts`` times as long as the encoder is wide."""
        super().__init__(head, features=parts * text_width(text), projection=projection)
        self.text = text
        self.pooling: Pooling = pooling

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of a ``TokenBatch``."""
        return pool(self.text(**text_inputs(self.text, batch)), batch.attention_mask, self.pooling)

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``ItemNetwork``; the head stays in float32."""
        self.text.to(dtype)
        if self.projection is not None:
            self.projection.to(dtype)
        super().prepare_for_scoring(device, dtype)
        accelerate_text_encoder(self.text)


@register
class TextTwoTower(TwoTowerFamily[TextTwoTowerArguments, TextTwoTowerOptions], TextStages):
    """Reads each item's text."""

    name = "text_two_tower"
    reads_text = True
    arguments = TextTwoTowerArguments
    options = TextTwoTowerOptions

    def start(
        self, options: TextTwoTowerOptions, texts: TextOptions, items: Sequence[Item]
    ) -> Start[TextTwoTowerArguments]:
        """See ``Family``."""
        source = fetch_text(options.text)
        arguments = TextTwoTowerArguments(
            **self.settled(options),
            text_config=source.config,
            texts=TextReading.of_items(texts, items),
            pooling=source.pooling,
            projection=options.projection,
        )
        return Start(
            arguments=arguments,
            parts=Parts(tokenizer=source.tokenizer),
            weights={"text": read_weights(source.tensors, source.pooling)},
            origins=[Origin(name="text", source=source.source, licence=source.licence)],
        )

    def build(self, arguments: TextTwoTowerArguments, parts: Parts) -> ItemNetwork:  # noqa: ARG002 - see TwoTowerFamily
        """See ``TwoTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        head = vector_head(arguments.axes, arguments.projection or text_width(text), dropout=arguments.dropout)
        return TextTowers(text, head, pooling=arguments.pooling, projection=arguments.projection)

    def reader(self, arguments: TextTwoTowerArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        return TextItemReader(arguments.texts.packer(parts.tokenizer, arguments.text_config))

    def freeze(self, network: TextTowers, options: TextTwoTowerOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return ()
