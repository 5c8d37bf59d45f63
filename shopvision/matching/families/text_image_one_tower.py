"""The family ``text_image_one_tower``: both texts as one sequence, with a token for each item's picture.

The image encoder stays as it is; its features enter the sequence behind a projection, in place of the word embeddings
of two tokens. Position, token type, layer norm and dropout are those of any token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shopvision.encoders.image_networks import dimension_of
from shopvision.encoders.text_sources import fetch_text
from shopvision.encoders.tokens import TokenBatch
from shopvision.items.item import Item
from shopvision.matching.families._network import PairNetwork, PairReader, Rows
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import PairHead, PictureComparingHead, outputs_of
from shopvision.matching.families.image_encoders import build_frozen_image
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_one_tower import (
    TextOneTowerArguments,
    TextOneTowerFamily,
    TextOneTowerOptions,
    states_width,
    text_fields,
)
from shopvision.matching.families.text_reading import TextOptions, TextPairReader
from shopvision.matching.families.towers import OneTower, build_text_encoder, read_weights, text_width
from shopvision.models.card import Architecture, ModelCard
from shopvision.training.pretrained import fetch_image


class TextImageOneTowerOptions(TextOneTowerOptions):
    """Options.

    Attributes:
        image: image encoder, see ``shopvision.models.importers.fetch``; it stays as it is.
        compare_pictures: let the head compare both pictures, beside the sequence that they are tokens of.
    """

    family: str = "text_image_one_tower"
    image: str = "wheel:efficientnet-lite0"
    compare_pictures: bool = True


class TextImageOneTowerArguments(TextOneTowerArguments):
    """Arguments.

    Attributes:
        image: the image encoder, without classifier.
        compare_pictures: the head sees what the pictures have in common, and how they differ, beside the sequence.
    """

    image: Architecture
    compare_pictures: bool = False


@dataclass(frozen=True, slots=True)
class IllustratedPairs:
    """n pairs with pictures.

    Attributes:
        tokens: of the pairs.
        slots: (n, 2) int64, the positions of the picture tokens.
        pictures: (n, 2, d) features of unit length of both items' pictures; zeros where an item has none, so that only
            the projection's bias is left of it: the learned vector for "no picture".
    """

    tokens: TokenBatch
    slots: Tensor
    pictures: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> IllustratedPairs:
        """The batch on another device."""
        return IllustratedPairs(self.tokens.to(device), self.slots.to(device), self.pictures.to(device))

    def rows(self, index: slice) -> IllustratedPairs:
        """Some of the pairs, without the padding that only the others needed."""
        return IllustratedPairs(self.tokens.rows(index), self.slots[index], self.pictures[index])


class IllustratedPairReader(TextPairReader):
    """Pairs as token sequences with places for pictures."""

    def batch(self, kept: ItemTokens, left: Rows, right: Rows, pictures: Tensor | None) -> IllustratedPairs:
        """See ``PairReader``."""
        packed = self.packer.pairs(kept, left, right)
        if pictures is None or packed.slots is None:
            raise ValueError("a model of texts and pictures needs both")
        return IllustratedPairs(packed.tokens, packed.slots, pictures)


class IllustratedOneTower(OneTower):
    """A one-tower whose sequences hold two pictures.

    Attributes:
        image_projection: features of a picture to a word embedding.
    """

    def __init__(self, text: nn.Module, head: nn.Module, *, features: int, **options: Any) -> None:
        """Put together; ``features`` is d, ``options`` are those of ``OneTower``."""
        super().__init__(text, head, **options)
        words: nn.Embedding = text.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
        self.image_projection = nn.Linear(features, words.embedding_dim)

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``IllustratedPairs``."""
        embeddings: Tensor = self.text.get_input_embeddings()(batch.tokens.input_ids)  # type: ignore[operator] # as above
        projection = self.image_projection
        projected = projection(batch.pictures.to(projection.weight.dtype)).to(embeddings.dtype)
        embeddings = embeddings.scatter(1, batch.slots.unsqueeze(2).expand_as(projected), projected)
        states = self.states(batch.tokens, embeddings)
        compares = isinstance(self.head, PictureComparingHead)
        logits: Tensor = self.head(states, batch.pictures) if compares else self.head(states)
        return logits


@register
class TextImageOneTower(TextOneTowerFamily[TextImageOneTowerArguments, TextImageOneTowerOptions]):
    """Reads both texts and both pictures, as far as there are any."""

    name = "text_image_one_tower"
    pictures = "features"
    arguments = TextImageOneTowerArguments
    options = TextImageOneTowerOptions

    def start(
        self, options: TextImageOneTowerOptions, texts: TextOptions, items: Sequence[Item]
    ) -> Start[TextImageOneTowerArguments]:
        """See ``Family``."""
        text, image = fetch_text(options.text), fetch_image(options.image)
        arguments = TextImageOneTowerArguments(
            **self.settled(options),
            **text_fields(options, text, texts, items),
            image=image.card.architecture,
            compare_pictures=options.compare_pictures,
        )
        return Start(
            arguments=arguments,
            parts=Parts(tokenizer=text.tokenizer, preprocessing=image.preprocessing, image_encoder=image.network),
            weights={"text": read_weights(text.tensors, arguments.pooling)},
            origins=[
                Origin(name="text", source=text.source, licence=text.licence),
                Origin(name="image", source=image.card.source, licence=image.card.licence),
            ],
            image=image,
        )

    def build(self, arguments: TextImageOneTowerArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002
        """See ``OneTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        hidden, features = text_width(text), dimension_of(arguments.image)
        states = states_width(arguments, hidden)
        outputs, dropout = outputs_of(arguments.axes), arguments.dropout
        head: nn.Module
        if arguments.compare_pictures:
            head = PictureComparingHead(states, features, hidden, outputs=outputs, dropout=dropout)
        else:
            head = PairHead(states, hidden, outputs=outputs, dropout=dropout)
        return IllustratedOneTower(
            text,
            head,
            features=features,
            pooling=arguments.pooling,
            layers=arguments.layers,
            layer_pooling=arguments.layer_pooling,
        )

    def reader(self, arguments: TextImageOneTowerArguments, parts: Parts) -> PairReader[Any]:
        """See ``OneTowerFamily``."""
        packer = arguments.texts.packer(parts.tokenizer, arguments.text_config, image_token=True)
        return IllustratedPairReader(packer)

    def load_parts(self, folder: Path, card: ModelCard, arguments: TextImageOneTowerArguments) -> Parts:
        """See ``Family``."""
        parts = super().load_parts(folder, card, arguments)
        return Parts(
            tokenizer=parts.tokenizer,
            preprocessing=parts.preprocessing,
            image_encoder=build_frozen_image(arguments.image),
        )
