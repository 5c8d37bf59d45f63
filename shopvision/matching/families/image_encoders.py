"""Image encoders of pair models: how they are chosen, and those that stay beside a network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from shopvision.encoders.image_networks import build_image
from shopvision.errors import UserError
from shopvision.matching.families._parts import FamilyArguments, FamilyOptions, Origin, Parts
from shopvision.matching.families.picture_regions import RegionPreprocessing, detector_folder
from shopvision.models.card import Architecture
from shopvision.training.pretrained import PretrainedImage, at_size, fetch_image

if TYPE_CHECKING:
    from torch import nn

    from shopvision.encoders.text_sources import TextSource


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


def origins_of(text: TextSource, image: PretrainedImage) -> list[Origin]:
    """Where a model of texts and pictures begins."""
    return [
        Origin(name="text", source=text.source, licence=text.licence),
        Origin(name="image", source=image.card.source, licence=image.card.licence),
    ]
