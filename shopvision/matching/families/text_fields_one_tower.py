"""The family ``text_fields_one_tower``: an encoder reads a pair once for each field, both items' side by side.

Titles meet titles and attributes meet attributes, each with a length of its own, so that a long list of attributes
takes no room from the titles. Layout of a pass, with the token types of any pair::

    [CLS] A field [SEP] B field [SEP]

What the passes say (a pooler on the first token or the mean, tanh) is summed, and one layer reads the sum. The same
encoder and pooler read all fields. Published with BERT-base: title 150 tokens, attributes 512, category 20, path 50,
industry 20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import pool
from shopvision.encoders.text_sources import TextSource, fetch_text
from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._family import OneTowerFamily
from shopvision.matching.families._network import PairNetwork, PairReader, Rows
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import SummedPairHead, outputs_of
from shopvision.matching.families.informed import (
    Informed,
    InformedArguments,
    InformedOptions,
    build_network,
    build_reader,
    informed_fields,
)
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions, TextReading
from shopvision.matching.families.towers import (
    build_text_encoder,
    freeze_layers,
    read_weights,
    text_inputs,
    text_width,
)

FieldName = Literal["title", "attributes", "category", "category_path", "industry", "brand", "price", "description"]
Lengths = Mapping[FieldName, int]
_LENGTHS: Lengths = {"title": 64, "attributes": 128, "category": 20, "category_path": 50, "industry": 20}


class TextFieldsOneTowerOptions(InformedOptions):
    """Options; those of ``InformedOptions`` as well.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        pooling: of its states; by default its own, or ``cls`` where that is its pooler.
        fields: of an item -> most tokens of a pair's pass over it.
        frozen_layers: how many of its first layers, with the embeddings below, are kept as they are.
    """

    family: str = "text_fields_one_tower"
    text: str = "wheel:minilm"
    pooling: Literal["cls", "mean"] | None = None
    fields: Lengths = Field(_LENGTHS, min_length=1)
    frozen_layers: int = Field(0, ge=0)


class TextFieldsOneTowerArguments(InformedArguments):
    """Arguments; those of ``InformedArguments`` as well.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how fields become texts.
        pooling: of the encoder's states.
        fields: of an item -> most tokens of a pair's pass over it.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: Literal["cls", "mean"] = "cls"
    fields: Lengths = Field(_LENGTHS, min_length=1)


@dataclass(frozen=True, slots=True)
class FieldPairs:
    """n pairs, once for each field.

    Attributes:
        passes: of each field, in the order of the arguments.
    """

    passes: tuple[TokenBatch, ...]

    def __len__(self) -> int:
        return len(self.passes[0])

    def to(self, device: torch.device) -> FieldPairs:
        """The batch on another device."""
        return FieldPairs(tuple(one.to(device) for one in self.passes))

    def rows(self, index: slice) -> FieldPairs:
        """Some of the pairs, without the padding that only the others needed."""
        return FieldPairs(tuple(one.rows(index) for one in self.passes))


class FieldReader(PairReader[tuple[ItemTokens, ...]]):
    """Pairs as token sequences, one for each field."""

    def __init__(self, packers: Mapping[FieldName, Packer]) -> None:
        self.packers = packers

    def read(self, items: Sequence[Item]) -> tuple[ItemTokens, ...]:
        """See ``PairReader``; token ids of every field."""
        return tuple(packer.items([only(item, name) for item in items]) for name, packer in self.packers.items())

    def has_text(self, item: Item) -> bool:
        """See ``PairReader``."""
        return any(packer.has_text(only(item, name)) for name, packer in self.packers.items())

    def lengths(self, kept: tuple[ItemTokens, ...], left: Rows, right: Rows) -> NDArray[np.int64]:
        """See ``PairReader``; of all passes together."""
        pairs = zip(self.packers.values(), kept, strict=True)
        total: NDArray[np.int64] = np.sum([packer.pair_lengths(items, left, right) for packer, items in pairs], axis=0)
        return total

    def batch(
        self, kept: tuple[ItemTokens, ...], left: Rows, right: Rows, pictures: Tensor | None  # noqa: ARG002 - none read
    ) -> FieldPairs:  # fmt: skip
        """See ``PairReader``."""
        pairs = zip(self.packers.values(), kept, strict=True)
        return FieldPairs(tuple(packer.pairs(items, left, right).tokens for packer, items in pairs))


def only(item: Item, field: FieldName) -> Item:
    """An item as the packer of one field reads it.

    All but attributes are read as titles. Codes are compared in the pass over titles, wherever they stand, so that this
    one gets the whole item.
    """
    if field == "title":
        return item
    if field == "attributes":
        return Item(item.item_id, category=item.category, attributes=item.attributes)
    return Item(item.item_id, title=getattr(item, field))


class FieldTower(PairNetwork):
    """An encoder that reads every field of a pair, and a head on all that it says.

    Attributes:
        text: a transformers encoder.
        head: states of all fields to log-odds.
    """

    def __init__(self, text: nn.Module, head: SummedPairHead, pooling: Literal["cls", "mean"]) -> None:
        super().__init__()
        self.text, self.head, self.pooling = text, head, pooling

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``FieldPairs``."""
        states = [
            pool(self.text(**text_inputs(self.text, tokens)), tokens.attention_mask, self.pooling)
            for tokens in batch.passes
        ]
        logits: Tensor = self.head(torch.stack(states, 1))
        return logits

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``PairNetwork``."""
        super().prepare_for_scoring(device, dtype)
        accelerate_text_encoder(self.text, pooling=self.pooling, layers=(1,))


class InformedFieldTower(Informed, FieldTower):
    """One that is told what statements say as well."""


@register
class TextFieldsOneTower(OneTowerFamily[TextFieldsOneTowerArguments, TextFieldsOneTowerOptions]):
    """Reads both items' fields; each pair costs a pass of the encoder for each."""

    name = "text_fields_one_tower"
    reads_text = True
    unread_text_options: ClassVar = {"max_length": "give each of model.fields its length"}
    arguments = TextFieldsOneTowerArguments
    options = TextFieldsOneTowerOptions

    def start(
        self, options: TextFieldsOneTowerOptions, texts: TextOptions, items: Sequence[Item]
    ) -> Start[TextFieldsOneTowerArguments]:
        """See ``Family``."""
        source = fetch_text(options.text)
        arguments = TextFieldsOneTowerArguments(
            **self.settled(options),
            text_config=source.config,
            texts=TextReading.of_pairs(texts, items),
            pooling=options.pooling or ("cls" if source.pooling == "pooler" else source.pooling),
            fields=options.fields,
            **informed_fields(options, items),
        )
        return Start(
            arguments=arguments,
            parts=Parts(tokenizer=source.tokenizer),
            weights={"text": read_weights(source.tensors, arguments.pooling)} | _pooler(source, arguments.pooling),
            origins=[Origin(name="text", source=source.source, licence=source.licence)],
        )

    def build(self, arguments: TextFieldsOneTowerArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002 - see OneTowerFamily
        """See ``OneTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        width = text_width(text)
        head = SummedPairHead(width, width, outputs=outputs_of(arguments.axes), dropout=arguments.dropout)
        return build_network(FieldTower, InformedFieldTower, arguments, text, head, arguments.pooling)

    def reader(self, arguments: TextFieldsOneTowerArguments, parts: Parts) -> PairReader[Any]:
        """See ``OneTowerFamily``."""
        packers: dict[FieldName, Packer] = {}
        for name, length in arguments.fields.items():
            reading = _reading(arguments.texts, name, length)
            try:
                packers[name] = reading.packer(parts.tokenizer, arguments.text_config)
            except UserError as error:
                raise UserError(f"model.fields.{name}: {error}") from None
        return build_reader(FieldReader(packers), arguments)

    def freeze(self, network: FieldTower, options: TextFieldsOneTowerOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return ()


def _reading(texts: TextReading, field: FieldName, length: int) -> TextReading:
    """How one field becomes text: as a title, or as the configured builder orders attributes."""
    changes: dict[str, Any] = {"max_length": length}
    if field != "attributes":
        changes |= {"builder": "title", "statistics": None}
    elif texts.builder == "title":
        changes |= {"builder": "title_attributes"}
    if field != "title":
        changes |= {"compare_codes": False, "common_codes": ()}
    return texts.model_copy(update=changes)


def _pooler(source: TextSource, pooling: str) -> dict[str, dict[str, Tensor]]:
    """An encoder's own pooler, for the head's first layer; nothing where it has none or reads something else."""
    if source.pooling != "pooler" or pooling != "cls":
        return {}
    found = {name: source.tensors.get(f"pooler.dense.{name}") for name in ("weight", "bias")}
    return {} if None in found.values() else {"head.dense": found}  # type: ignore[dict-item] # none is None
