"""The family ``text_one_tower``: an encoder reads both items' texts as one sequence. The best for text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field
from torch import nn

from shopvision.encoders.text_sources import TextSource, fetch_text
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._family import OneTowerFamily
from shopvision.matching.families._network import PairNetwork, PairReader
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import PairHead, outputs_of
from shopvision.matching.families.informed import (
    Informed,
    InformedArguments,
    InformedOptions,
    build_network,
    build_reader,
    informed_fields,
)
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions, TextPairReader, TextReading
from shopvision.matching.families.text_stages import TextStages
from shopvision.matching.families.towers import (
    LayerPooling,
    OneTower,
    build_text_encoder,
    freeze_layers,
    read_weights,
    text_width,
)


class TextPairOptions(InformedOptions):
    """Options of one-towers around a text encoder; those of ``InformedOptions`` as well.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        pooling: of its states; by default its own, or ``cls`` where that is its pooler.
        layers: which of its layers the head reads, counted from the top.
        layer_pooling: how several are put together.
        frozen_layers: how many of its first layers, with the embeddings below, are kept as they are.
    """

    text: str = "wheel:minilm"
    pooling: Literal["cls", "mean"] | None = None
    layers: tuple[int, ...] = Field((1,), min_length=1)
    layer_pooling: LayerPooling = "cat"
    frozen_layers: int = Field(0, ge=0)


class TextPairArguments(InformedArguments):
    """Arguments of one-towers around a text encoder; those of ``InformedArguments`` as well.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how pairs become sequences.
        pooling: of the encoder's states.
        layers: which layers the head sees, counted from the top.
        layer_pooling: several layers are concatenated or averaged.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: Literal["cls", "mean"] = "cls"
    layers: tuple[int, ...] = Field((1,), min_length=1)
    layer_pooling: LayerPooling = "cat"


class TextOneTowerOptions(TextPairOptions):
    """Options."""

    family: str = "text_one_tower"


class TextOneTowerArguments(TextPairArguments):
    """Arguments."""


class InformedOneTower(Informed, OneTower):
    """A one-tower that is told what statements say."""


Arguments = TypeVar("Arguments", bound=TextPairArguments)
Options = TypeVar("Options", bound=TextPairOptions)


class TextOneTowerFamily(OneTowerFamily[Arguments, Options]):
    """What one-tower families around a text encoder have in common."""

    reads_text = True

    def freeze(self, network: OneTower, options: Options) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return ()


@register
class TextOneTower(TextOneTowerFamily[TextOneTowerArguments, TextOneTowerOptions], TextStages):
    """Reads both texts; each pair costs a pass of the encoder."""

    name = "text_one_tower"
    arguments = TextOneTowerArguments
    options = TextOneTowerOptions

    def start(
        self, options: TextOneTowerOptions, texts: TextOptions, items: Sequence[Item]
    ) -> Start[TextOneTowerArguments]:
        """See ``Family``."""
        source = fetch_text(options.text)
        arguments = TextOneTowerArguments(
            **self.settled(options),
            **text_fields(options, source, texts, items),
        )
        return Start(
            arguments=arguments,
            parts=Parts(tokenizer=source.tokenizer),
            weights={"text": read_weights(source.tensors, arguments.pooling)},
            origins=[Origin(name="text", source=source.source, licence=source.licence)],
        )

    def build(self, arguments: TextOneTowerArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002 - see OneTowerFamily
        """See ``OneTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        width = text_width(text)
        outputs = outputs_of(arguments.axes)
        head = PairHead(states_width(arguments, width), width, outputs=outputs, dropout=arguments.dropout)
        return build_network(OneTower, InformedOneTower, arguments, text, head, **states_options(arguments))

    def reader(self, arguments: TextOneTowerArguments, parts: Parts) -> PairReader[Any]:
        """See ``OneTowerFamily``."""
        return build_reader(TextPairReader(arguments.texts.packer(parts.tokenizer, arguments.text_config)), arguments)


def text_fields(
    options: TextPairOptions, source: TextSource, texts: TextOptions, items: Sequence[Item]
) -> dict[str, Any]:
    """The fields of ``TextPairArguments`` that follow from the options and the encoder."""
    return {
        "text_config": source.config,
        "texts": TextReading.of_pairs(texts, items),
        "pooling": options.pooling or ("cls" if source.pooling == "pooler" else source.pooling),
        "layers": options.layers,
        "layer_pooling": options.layer_pooling,
        **informed_fields(options, items),
    }


def states_options(arguments: TextPairArguments) -> dict[str, Any]:
    """What a ``OneTower`` is to make of its encoder's states."""
    return arguments.model_dump(include={"pooling", "layers", "layer_pooling"})


def states_width(arguments: TextPairArguments, hidden: int) -> int:
    """How much the head sees of an encoder of width ``hidden``.

    Raises:
        UserError: the encoder has no such layers.
    """
    layers = arguments.layers
    depth = arguments.text_config.get("num_hidden_layers", max(layers))
    if min(layers) < 1 or max(layers) > depth:
        raise UserError(f"layers {list(layers)}: count from the top, 1 to {depth}.")
    return hidden * (len(layers) if arguments.layer_pooling == "cat" else 1)
