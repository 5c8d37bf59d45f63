"""Image encoders of pair models: how they are chosen, and those that stay beside a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from shopvision.encoders.image_networks import build_image
from shopvision.errors import UserError
from shopvision.matching.families._parts import ArgumentsT, FamilyArguments, FamilyOptions, Origin, Parts, Start
from shopvision.matching.families.picture_regions import RegionPreprocessing, detector_folder
from shopvision.matching.families.text_reading import TextOptions, TextReading
from shopvision.matching.families.towers import read_weights
from shopvision.models.card import Architecture
from shopvision.training.pretrained import PretrainedImage, at_size, fetch_image

if TYPE_CHECKING:
    from torch import nn

    from shopvision.encoders.text_networks import Pooling
    from shopvision.encoders.text_sources import TextSource
    from shopvision.items.item import Item


class PictureOptions(FamilyOptions):
    """Options of families that read pictures.

    Attributes:
        image: image encoder, see ``shopvision.models.importers.fetch``.
        image_size: edge of the square pictures that it reads, pixels; by default its own.
        crop: ``region`` cuts pictures to the main garment that a detector finds in them; where it finds none, and with
            ``whole``, they are read as they are.
        detector: ``name:tag`` of a registered one, or the folder of its model version; by default the active one.
    """

    image: str = "wheel:efficientnet-lite0"
    image_size: int | None = Field(None, ge=32, le=2048)
    crop: Literal["whole", "region"] = "whole"
    detector: str | None = None


class LearnablePictureOptions(PictureOptions):
    """Options of families whose image encoder may learn.

    Attributes:
        frozen_image: keep the image encoder as it is; its outputs are computed once.
        flips: share of the pictures that are mirrored in a step of training, where the encoder learns.
    """

    frozen_image: bool = True
    flips: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _flips_are_seen(self) -> Self:
        if self.flips and self.frozen_image:
            raise UserError(
                "model.flips mirrors nothing where the image encoder stays as it is and looks at each picture once: "
                "set frozen_image = false, or leave it out."
            )
        return self


class FrozenPictureOptions(PictureOptions):
    """Options of families whose image encoder stays as it is.

    Attributes:
        unit_features: bring its features to unit length; otherwise they are read as they are.
    """

    unit_features: bool = True


class FrozenPictureArguments(FamilyArguments):
    """Arguments of families whose image encoder stays as it is.

    Attributes:
        image: the image encoder, without classifier.
        unit_features: whether its features are brought to unit length.
    """

    image: Architecture
    unit_features: bool = True


FrozenArgumentsT = TypeVar("FrozenArgumentsT", bound=FrozenPictureArguments)


def fetch_pictures(options: PictureOptions) -> PretrainedImage:
    """The image encoder that the options name.

    Raises:
        UserError: it cannot be had, or not at that size; or there is no such detector.
        JobError: no detector is active.
    """
    if options.detector and options.crop == "whole":
        raise UserError("model.detector finds nothing for whole pictures: set crop to region, or leave it out.")
    detector = None if options.crop == "whole" else detector_folder(options.detector)
    image = fetch_image(options.image)
    image = image if options.image_size is None else at_size(image, options.image_size)
    if detector is None:
        return image
    return replace(image, preprocessing=RegionPreprocessing.of(image.preprocessing, detector))


def build_frozen_image(image: Architecture) -> nn.Module:
    """An image encoder that stays beside a network, weights still random."""
    return build_image(image).requires_grad_(requires_grad=False)


def with_frozen_image(parts: Parts, arguments: FrozenPictureArguments) -> Parts:
    """The parts, with an image encoder whose weights are still random."""
    encoder = build_frozen_image(arguments.image)
    return replace(parts, image_encoder=encoder, unit_features=arguments.unit_features)


def begin_beside(
    arguments: FrozenArgumentsT, text: TextSource, image: PretrainedImage, pooling: Pooling
) -> Start[FrozenArgumentsT]:
    """What training begins from where the image encoder stays beside the network, as it is.

    Args:
        arguments: of the network.
        text: the text encoder, the network's ``text``.
        image: the image encoder.
        pooling: of the text encoder's states.
    """
    parts = Parts(
        tokenizer=text.tokenizer,
        preprocessing=image.preprocessing,
        image_encoder=image.network,
        unit_features=arguments.unit_features,
    )
    weights = {"text": read_weights(text.tensors, pooling)}
    return Start(arguments=arguments, parts=parts, weights=weights, origins=_origins(text, image), image=image)


def begin_inside(
    arguments: ArgumentsT, text: TextSource, image: PretrainedImage, pooling: Pooling
) -> Start[ArgumentsT]:
    """As ``begin_beside``, where the image encoder is ``pictures.image`` of the network."""
    parts = Parts(tokenizer=text.tokenizer, preprocessing=image.preprocessing)
    weights = {"text": read_weights(text.tensors, pooling), "pictures.image": image.network.state_dict()}
    return Start(arguments=arguments, parts=parts, weights=weights, origins=_origins(text, image), image=image)


def cells_and_text(
    text: TextSource, image: PretrainedImage, texts: TextOptions, items: Sequence[Item], heads: int | None
) -> dict[str, Any]:
    """Fields that the arguments of networks of texts and cells of pictures have in common.

    Args:
        text: the text encoder.
        image: the image encoder.
        texts: section ``[text]``.
        items: those of the training pairs.
        heads: of the layers above the encoders; by default as many as the text encoder's.
    """
    return {
        "text_config": text.config,
        "texts": TextReading.of_items(texts, items),
        "pooling": "mean" if text.pooling == "mean" else "cls",
        "image": image.card.architecture,
        "heads": heads or text.config.get("num_attention_heads", 1),
    }


def _origins(text: TextSource, image: PretrainedImage) -> list[Origin]:
    return [
        Origin(name="text", source=text.source, licence=text.licence),
        Origin(name="image", source=image.card.source, licence=image.card.licence),
    ]
