"""A composed encoder as a model version: a folder that holds its members, and what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shopvision.encoders.image_networks import KIND as ENCODER_KIND
from shopvision.errors import UserError
from shopvision.fashion.composition.arguments import DETECTOR_FOLDER, CompositionArguments
from shopvision.fashion.composition.categories import require_classes
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.detection.card import load_network
from shopvision.fashion.kinds import COMPOSED_KIND
from shopvision.fashion.kinds import KIND as DETECTOR_KIND
from shopvision.models.card import Architecture, ModelCard, own_folder_name
from shopvision.models.version_folder import FileWriter, member_folder, read_card, write_version

FAMILY = "detector_and_encoder"
ENCODER_FOLDER = "encoder"


def class_folder(label: str) -> str:
    """Where in a version the encoder for a class lies."""
    return f"encoders/{own_folder_name(label)}"


def compose(
    folder: Path,
    *,
    detector: Path,
    encoder: Path,
    by_class: Mapping[str, Path] | None = None,
    policy: CropPolicy | None = None,
    classes: Mapping[str, str] | None = None,
    name: str,
    tag: str | None = None,
) -> ModelCard:
    """Write a model version with copies of its members, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        detector: folder of a detector's version.
        encoder: of an image encoder's, for whatever has none of its own.
        by_class: class of the detector -> of an image encoder's, for regions of that class.
        policy: what of a picture gets a vector; by default its main garment.
        classes: category path -> class of the detector.
        name: of the composed encoder.
        tag: by default made from the content.

    Raises:
        UserError: a member is of another kind, a class is unknown, encoders differ in dimension or preprocessing, or
            whole pictures are asked for with encoders by class, which have nothing to choose by.
        JobError: the detector's weights do not fit its card.
    """
    by_class, policy, classes = by_class or {}, policy or CropPolicy(), classes or {}
    detector_card, encoder_card = read_card(detector, DETECTOR_KIND), read_card(encoder, ENCODER_KIND)
    labels = load_network(detector)[0].labels
    require_classes({f"the encoder for {label}": label for label in by_class}, labels, detector_card.spec)
    require_classes({f"the category {path}": label for path, label in classes.items()}, labels, detector_card.spec)
    if policy.crop == "whole" and by_class:
        raise UserError("Whole pictures have no class to choose an encoder by: crop main or all, or leave them out.")
    cards = {label: read_card(source, ENCODER_KIND) for label, source in by_class.items()}
    for card in cards.values():
        require_same_input(encoder_card, card)
    arguments = CompositionArguments(
        detector=detector_card.spec,
        encoder=encoder_card.spec,
        by_class={label: card.spec for label, card in sorted(cards.items())},
        policy=policy,
        classes=dict(sorted(classes.items())),
    )
    members = (detector_card, encoder_card, *cards.values())
    return write_version(
        folder,
        _member_files({DETECTOR_FOLDER: detector, ENCODER_FOLDER: encoder}, by_class),
        name=name,
        tag=tag,
        kind=COMPOSED_KIND,
        architecture=Architecture(library="shopvision", name=FAMILY, arguments=arguments.model_dump(mode="json")),
        preprocessing=encoder_card.preprocessing,
        dimension=(encoder_card.dimension or 0) + arguments.routes.coordinates,
        source=f"composed of {', '.join(card.spec for card in members)}",
        licence="; ".join(dict.fromkeys(card.licence for card in members)),
    )


def require_same_input(one: ModelCard, other: ModelCard) -> None:
    """Refuse encoders whose vectors cannot lie in one index, or that read pictures in different ways.

    Raises:
        UserError: names both and what differs.
    """
    if one.dimension != other.dimension:
        raise UserError(
            f"{one.spec} gives vectors of {one.dimension} dimensions and {other.spec} of {other.dimension}: encoders "
            "that are composed must agree."
        )
    if one.preprocessing != other.preprocessing:
        raise UserError(
            f"{one.spec} and {other.spec} want their pictures prepared in different ways (see `shopvision models "
            "show`): encoders that are composed must agree."
        )


def _member_files(common: Mapping[str, Path], by_class: Mapping[str, Path]) -> list[FileWriter]:
    places = {**common, **{class_folder(label): source for label, source in by_class.items()}}
    return [member_folder(source, place) for place, source in places.items()]
