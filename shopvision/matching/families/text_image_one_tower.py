"""The family ``text_image_one_tower``: both texts as one sequence, and both pictures.

The image encoder stays as it is. Its features enter the sequence behind a projection, in place of the word embeddings
of two tokens (published as fusion at the ``begin``): position, token type, layer norm and dropout are those of any
token. And the head compares both pictures, beside what the sequence says (fusion at the ``end``). Either can be
switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shopvision.encoders.image_networks import dimension_of
from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._network import PairNetwork, PairReader, Rows
from shopvision.matching.families._parts import Parts, Start
from shopvision.matching.families.heads import PairHead, PictureComparingHead, outputs_of
from shopvision.matching.families.illustrated import Illustrated, embeddings_with_pictures, picture_projection
from shopvision.matching.families.image_encoders import (
    FrozenPictureArguments,
    FrozenPictureOptions,
    begin_beside,
    fetch_pictures,
    with_frozen_image,
)
from shopvision.matching.families.informed import Informed, build_network, build_reader
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_one_tower import (
    TextOneTowerFamily,
    TextPairArguments,
    TextPairOptions,
    states_options,
    states_width,
    text_fields,
)
from shopvision.matching.families.text_reading import TextOptions, TextPairReader
from shopvision.matching.families.towers import OneTower, build_text_encoder, text_width
from shopvision.models.card import ModelCard


class TextImageOneTowerOptions(TextPairOptions, FrozenPictureOptions):
    """Options.

    Attributes:
        picture_tokens: let pictures be tokens of the sequence.
        compare_pictures: let the head compare both pictures, beside the sequence.
    """

    family: str = "text_image_one_tower"
    picture_tokens: bool = True
    compare_pictures: bool = True


class TextImageOneTowerArguments(TextPairArguments, FrozenPictureArguments):
    """Arguments.

    Attributes:
        picture_tokens: pictures are tokens of the sequence.
        compare_pictures: the head sees what the pictures have in common, and how they differ, beside the sequence.
    """

    picture_tokens: bool = True
    compare_pictures: bool = False


class IllustratedPairReader(TextPairReader):
    """Pairs as token sequences, with their pictures."""

    def batch(self, kept: ItemTokens, left: Rows, right: Rows, pictures: Tensor | None) -> Illustrated:
        """See ``PairReader``."""
        return Illustrated.of(self.packer.pairs(kept, left, right), pictures)


class IllustratedOneTower(OneTower):
    """A one-tower beside whose texts there are two pictures.

    Attributes:
        image_projection: features of a picture to a word embedding; None where pictures are no tokens.
    """

    def __init__(self, text: nn.Module, head: nn.Module, *, features: int | None, **options: Any) -> None:
        """Put together; ``features`` is d where pictures are tokens, ``options`` are those of ``OneTower``."""
        super().__init__(text, head, **options)
        self.image_projection = None if features is None else picture_projection(text, features)

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``Illustrated``."""
        projection = self.image_projection
        embeddings = None if projection is None else embeddings_with_pictures(self.text, projection, batch)
        states = self.states(batch.tokens, embeddings)
        compares = isinstance(self.head, PictureComparingHead)
        logits: Tensor = self.head(states, batch.pictures) if compares else self.head(states)
        return logits


class InformedIllustratedOneTower(Informed, IllustratedOneTower):
    """One that is told what statements say as well."""


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
        text, image = fetch_text(options.text), fetch_pictures(options)
        arguments = TextImageOneTowerArguments(
            **self.settled(options),
            **text_fields(options, text, texts, items),
            image=image.card.architecture,
            unit_features=options.unit_features,
            picture_tokens=options.picture_tokens,
            compare_pictures=options.compare_pictures,
        )
        return begin_beside(arguments, text, image, arguments.pooling)

    def build(self, arguments: TextImageOneTowerArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002
        """See ``OneTowerFamily``."""
        if not (arguments.picture_tokens or arguments.compare_pictures):
            raise UserError("picture_tokens and compare_pictures are both off: take text_one_tower, or one of them.")
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        hidden, features = text_width(text), dimension_of(arguments.image)
        states = states_width(arguments, hidden)
        outputs, dropout = outputs_of(arguments.axes), arguments.dropout
        head: nn.Module
        if arguments.compare_pictures:
            unit = arguments.unit_features
            head = PictureComparingHead(states, features, hidden, outputs=outputs, dropout=dropout, unit=unit)
        else:
            head = PairHead(states, hidden, outputs=outputs, dropout=dropout)
        return build_network(
            IllustratedOneTower,
            InformedIllustratedOneTower,
            arguments,
            text,
            head,
            features=features if arguments.picture_tokens else None,
            **states_options(arguments),
        )

    def reader(self, arguments: TextImageOneTowerArguments, parts: Parts) -> PairReader[Any]:
        """See ``OneTowerFamily``."""
        tokens = arguments.picture_tokens
        packer = arguments.texts.packer(parts.tokenizer, arguments.text_config, image_token=tokens)
        return build_reader(IllustratedPairReader(packer), arguments)

    def load_parts(self, folder: Path, card: ModelCard, arguments: TextImageOneTowerArguments) -> Parts:
        """See ``Family``."""
        return with_frozen_image(super().load_parts(folder, card, arguments), arguments)
