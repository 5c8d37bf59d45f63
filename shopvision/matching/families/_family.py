"""Families of pair models: what each reads, and how it is built. A further family is one more entry of ``FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from shopvision.encoders.image_networks import build_timm
from shopvision.encoders.text_backbone import Pooling, build_text
from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item_texts import BuilderName, Segmenter
from shopvision.matching.families.axes import Axes, Interaction
from shopvision.matching.families.heads import AdditiveHead, InteractionHead, MetricHead, PairHead, PictureComparingHead
from shopvision.matching.families.towers import LayerPooling, OneTower, TwoTower
from shopvision.models.card import Architecture

LARGEST_VECTOR = 1024


class MatcherArguments(BaseModel):
    """Everything that a pair model is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        family: one of ``FAMILIES``.
        axes: interaction, head, similarity and loss.
        text_config: of the text encoder, for ``shopvision.encoders.text_backbone.build_text``.
        pooling: of the text encoder's states; one-tower models take ``cls`` or ``mean``.
        text_prefix: what the encoder wants before a single item, e.g. ``query:`` (E5).
        layers: of one-tower models: which layers the head sees, counted from the top.
        layer_pooling: several layers are concatenated or averaged.
        image: the image encoder, without classifier. Of text + image models it is frozen, and its features of unit
            length are what enters the sequence.
        compare_pictures: of text + image models: the head sees what the pictures have in common, and how they differ,
            beside the sequence.
        projection: dimensions of item vectors, where they are not the encoder's own.
        dropout: of the head.
        builder: of texts.
        segmenter: of texts.
        compare_codes: of texts: whether pairs begin with what the items' model codes say.
        statistics: of the text builder, see ``CategoryStatistics.to_json``.
        max_length: most tokens of a sequence.
        symmetric: score a pair in both orders and average the logits.
        calibration: how logits become probabilities, see ``shopvision.evaluation.calibration``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    axes: Axes
    text_config: dict[str, Any] | None = None
    pooling: Pooling = "mean"
    text_prefix: str = ""
    layers: tuple[int, ...] = Field((1,), min_length=1)
    layer_pooling: LayerPooling = "cat"
    image: Architecture | None = None
    compare_pictures: bool = False
    projection: int | None = Field(None, gt=0, le=LARGEST_VECTOR)
    dropout: float = Field(0.1, ge=0, lt=1)
    builder: BuilderName = "title_attributes"
    segmenter: Segmenter = "none"
    compare_codes: bool = False
    statistics: dict[str, Any] | None = None
    max_length: int = Field(256, gt=0)
    symmetric: bool = False
    calibration: dict[str, Any] = {"method": "none"}

    @model_validator(mode="after")
    def _fit_the_family(self) -> MatcherArguments:
        family = find_family(self.family)
        if self.axes.interaction != family.interaction:
            raise UserError(f"The family {self.family} is {family.interaction}, not {self.axes.interaction}.")
        for needed, given, what in (
            (family.reads_text, self.text_config, "text_config"),
            (family.reads_pictures, self.image, "image"),
        ):
            if needed != (given is not None):
                raise UserError(f"The family {self.family} {'needs' if needed else 'has no'} {what}.")
        if self.compare_pictures and not family.frozen_image:
            raise UserError(f"The family {self.family} has no compare_pictures: it is of models of text and pictures.")
        if family.interaction == "one_tower":
            depth = (self.text_config or {}).get("num_hidden_layers", max(self.layers))
            if min(self.layers) < 1 or max(self.layers) > depth:
                raise UserError(f"layers {list(self.layers)}: count from the top, 1 to {depth}.")
            if self.pooling == "pooler" or self.projection is not None:
                raise UserError("One-tower models have pooling cls or mean, and no projection.")
        return self


@dataclass(frozen=True)
class Family:
    """A kind of pair model.

    Attributes:
        interaction: whether items have vectors (``two_tower``).
        reads_text: needs ``text_config`` and a tokenizer.
        reads_pictures: needs ``image`` and a preprocessing.
        build: makes the network, float32, CPU, evaluation mode, weights still random.
        frozen_image: the image encoder is no part of the network: pictures come in as its features.
    """

    interaction: Interaction
    reads_text: bool
    reads_pictures: bool
    build: Callable[[MatcherArguments, Preprocessing | None], OneTower | TwoTower]
    frozen_image: bool = False


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: there is none.
    """
    if name not in FAMILIES:
        raise UserError(f"There is no family '{name}' of pair models: use one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def build_matcher(arguments: MatcherArguments, preprocessing: Preprocessing | None = None) -> OneTower | TwoTower:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Args:
        arguments: which network.
        preprocessing: of its pictures, where the family reads pictures.

    Raises:
        UserError: timm or transformers has no such encoder, or item vectors would be too long.
    """
    return find_family(arguments.family).build(arguments, preprocessing).eval()


def build_frozen_image(arguments: MatcherArguments) -> nn.Module | None:
    """The image encoder whose features the network reads, weights still random; None where it has none beside it."""
    if not find_family(arguments.family).frozen_image or arguments.image is None:
        return None
    return build_timm(arguments.image).requires_grad_(requires_grad=False)


def image_dimension(image: nn.Module) -> int:
    """Length of a timm network's features without its classifier."""
    # num_features would be the length before the layers that some networks have between pooling and classifier.
    length: int = image.head_hidden_size  # type: ignore[assignment] # timm sets a number
    return length


def _text(arguments: MatcherArguments) -> nn.Module:
    # Weights that no gradient reaches would stop distributed training.
    return build_text({**(arguments.text_config or {}), "add_pooling_layer": arguments.pooling == "pooler"})


def _width(text: nn.Module) -> int:
    width: int = text.config.hidden_size  # type: ignore[union-attr,assignment] # transformers is untyped
    return width


def _outputs(axes: Axes) -> int:
    return 2 if axes.loss == "ce" else 1


def _one_tower(arguments: MatcherArguments, _: Preprocessing | None) -> OneTower:
    text = _text(arguments)
    hidden = _width(text)
    states = hidden * (len(arguments.layers) if arguments.layer_pooling == "cat" else 1)
    outputs, dropout = _outputs(arguments.axes), arguments.dropout
    features = None
    if arguments.image is not None:
        with torch.device("meta"):  # it is asked for its length alone
            features = image_dimension(build_timm(arguments.image))
    head: nn.Module
    if arguments.compare_pictures and features is not None:
        head = PictureComparingHead(states, features, hidden, outputs=outputs, dropout=dropout)
    else:
        head = PairHead(states, hidden, outputs=outputs, dropout=dropout)
    return OneTower(
        text,
        head,
        pooling=arguments.pooling,
        layers=arguments.layers,
        layer_pooling=arguments.layer_pooling,
        image_features=features,
    )


def _two_tower_head(arguments: MatcherArguments, dimension: int) -> nn.Module:
    if dimension > LARGEST_VECTOR:
        raise UserError(f"Item vectors would have {dimension} dimensions: set projection to at most {LARGEST_VECTOR}.")
    axes = arguments.axes
    match axes.head:
        case "metric":
            return MetricHead(axes.similarity, learned=axes.loss == "bce")
        case "interaction":
            return InteractionHead(dimension, outputs=_outputs(axes), dropout=arguments.dropout)
        case _:
            return AdditiveHead(dimension, outputs=_outputs(axes), dropout=arguments.dropout)


def _text_two_tower(arguments: MatcherArguments, _: Preprocessing | None) -> TwoTower:
    text = _text(arguments)
    features = _width(text)
    head = _two_tower_head(arguments, arguments.projection or features)
    return TwoTower(head, features=features, text=text, pooling=arguments.pooling, projection=arguments.projection)


def _image_two_tower(arguments: MatcherArguments, preprocessing: Preprocessing | None) -> TwoTower:
    if arguments.image is None or preprocessing is None:
        raise UserError("A model of pictures needs an image encoder and its preprocessing.")
    image = build_timm(arguments.image)
    features = image_dimension(image)
    head = _two_tower_head(arguments, arguments.projection or features)
    return TwoTower(head, features=features, image=image, projection=arguments.projection, preprocessing=preprocessing)


FAMILIES: dict[str, Family] = {
    "text_one_tower": Family("one_tower", reads_text=True, reads_pictures=False, build=_one_tower),
    "text_two_tower": Family("two_tower", reads_text=True, reads_pictures=False, build=_text_two_tower),
    "image_two_tower": Family("two_tower", reads_text=False, reads_pictures=True, build=_image_two_tower),
    "text_image_one_tower": Family(
        "one_tower", reads_text=True, reads_pictures=True, build=_one_tower, frozen_image=True
    ),
}
