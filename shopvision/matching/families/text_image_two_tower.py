"""The family ``text_image_two_tower``: each item's text and picture together become a vector.

The image encoder stays as it is. With fusion at the ``begin`` its features are a token of the item's sequence, as in
``text_image_one_tower``; at the ``end`` they are projected to the width of the text's state and stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shopvision.encoders.image_networks import dimension_of
from shopvision.encoders.text_networks import Pooling, pool
from shopvision.encoders.text_sources import fetch_text
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader, Rows
from shopvision.matching.families._parts import Parts, Start
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.illustrated import Illustrated, embeddings_with_pictures, picture_projection
from shopvision.matching.families.image_encoders import (
    FrozenPictureArguments,
    FrozenPictureOptions,
    begin_beside,
    fetch_pictures,
    with_frozen_image,
)
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextItemReader, TextOptions, TextReading
from shopvision.matching.families.text_two_tower import TextTowers, TextTwoTowerArguments, TextTwoTowerOptions
from shopvision.matching.families.towers import build_text_encoder, freeze_layers, text_inputs, text_width
from shopvision.models.card import ModelCard

Fusion = Literal["begin", "end"]


class TextImageTwoTowerOptions(TextTwoTowerOptions, FrozenPictureOptions):
    """Options.

    Attributes:
        fusion: ``begin``: the picture is a token of the text, as published, which takes an encoder longer to learn than
            some thousand pairs last; ``end``: it stands beside what the text says.
    """

    family: str = "text_image_two_tower"
    fusion: Fusion = "end"


class TextImageTwoTowerArguments(TextTwoTowerArguments, FrozenPictureArguments):
    """Arguments.

    Attributes:
        fusion: see the options.
    """

    fusion: Fusion = "begin"


class IllustratedItemReader(TextItemReader):
    """Items as token sequences, with their pictures."""

    def batch(self, kept: ItemTokens, rows: Rows, pictures: Tensor | None) -> Illustrated:  # type: ignore[override] # more than tokens
        """See ``ItemReader``."""
        return Illustrated.of(self.packer.singles(kept, rows), None if pictures is None else pictures.unsqueeze(1))


class IllustratedTowers(TextTowers):
    """Towers of texts with pictures.

    Attributes:
        image_projection: features of a picture to a word embedding, or to what stands beside the text's state.
    """

    def __init__(
        self,
        text: nn.Module,
        head: nn.Module,
        *,
        pooling: Pooling,
        projection: int | None,
        features: int,
        unit: bool,
        fusion: Fusion,
    ) -> None:
        """Put together; ``features`` is the length of a picture's, which are of ``unit`` length."""
        super().__init__(text, head, pooling=pooling, projection=projection, parts=1 if fusion == "begin" else 2)
        # A linear layer expects numbers about 1; those of a unit vector would be lost beside the text's.
        self._factor = features**0.5 if unit else 1.0
        begins = fusion == "begin"
        self.image_projection = picture_projection(text, features) if begins else nn.Linear(features, text_width(text))

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of ``Illustrated``."""
        projection, pictures = self.image_projection, batch.pictures * self._factor
        illustrated = replace(batch, pictures=pictures)
        inputs = text_inputs(self.text, batch.tokens, embeddings_with_pictures(self.text, projection, illustrated))
        said = pool(self.text(**inputs), batch.tokens.attention_mask, self.pooling)
        if batch.slots is not None:
            return said
        shown = torch.tanh(projection(pictures[:, 0].to(projection.weight.dtype)))
        return torch.cat([said, shown.to(said.dtype)], 1)

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``ItemNetwork``."""
        self.image_projection.to(dtype)
        super().prepare_for_scoring(device, dtype)


@register
class TextImageTwoTower(TwoTowerFamily[TextImageTwoTowerArguments, TextImageTwoTowerOptions]):
    """Reads each item's text and picture, as far as there are any."""

    name = "text_image_two_tower"
    reads_text = True
    pictures = "features"
    arguments = TextImageTwoTowerArguments
    options = TextImageTwoTowerOptions

    def start(
        self, options: TextImageTwoTowerOptions, texts: TextOptions, items: Sequence[Item]
    ) -> Start[TextImageTwoTowerArguments]:
        """See ``Family``."""
        text, image = fetch_text(options.text), fetch_pictures(options)
        arguments = TextImageTwoTowerArguments(
            **self.settled(options),
            text_config=text.config,
            texts=TextReading.of_items(texts, items),
            pooling=text.pooling,
            projection=options.projection,
            image=image.card.architecture,
            unit_features=options.unit_features,
            fusion=options.fusion,
        )
        return begin_beside(arguments, text, image, arguments.pooling)

    def build(self, arguments: TextImageTwoTowerArguments, parts: Parts) -> ItemNetwork:  # noqa: ARG002 - see TwoTowerFamily
        """See ``TwoTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        width = text_width(text) * (1 if arguments.fusion == "begin" else 2)
        return IllustratedTowers(
            text,
            vector_head(arguments.axes, arguments.projection or width, dropout=arguments.dropout),
            pooling=arguments.pooling,
            projection=arguments.projection,
            features=dimension_of(arguments.image),
            unit=arguments.unit_features,
            fusion=arguments.fusion,
        )

    def reader(self, arguments: TextImageTwoTowerArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        token = arguments.fusion == "begin"
        return IllustratedItemReader(arguments.texts.packer(parts.tokenizer, arguments.text_config, image_token=token))

    def freeze(self, network: IllustratedTowers, options: TextImageTwoTowerOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        freeze_layers(network.text, options.frozen_layers)
        return ()

    def load_parts(self, folder: Path, card: ModelCard, arguments: TextImageTwoTowerArguments) -> Parts:
        """See ``Family``."""
        return with_frozen_image(super().load_parts(folder, card, arguments), arguments)
