"""Thumbnail classifiers as model versions: a card that says the classes, and ``model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.errors import UserError
from shopvision.fashion.kinds import CLASSIFIER_KIND
from shopvision.fashion.thumbnails.network import NAME, ClassifierArguments, ClassifierNetwork, build_classifier
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import load_weights, read_arguments, read_card, weights_file, write_version

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing


def save_classifier(
    folder: Path,
    network: ClassifierNetwork,
    preprocessing: Preprocessing,
    *,
    name: str,
    source: str,
    **card_fields: Any,
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        network: the classifier; its arguments hold the classes and the temperature.
        preprocessing: of its pictures.
        name: of the model.
        source: where the weights came from.
        card_fields: further fields of ``ModelCard``: tag, licence, training_data, metrics.
    """
    return write_version(
        folder,
        [weights_file(network.state_dict())],
        name=name,
        kind=CLASSIFIER_KIND,
        architecture=Architecture(library="shopvision", name=NAME, arguments=network.arguments.model_dump(mode="json")),
        preprocessing=preprocessing,
        source=source,
        **card_fields,
    )


def load_network(folder: Path) -> tuple[ClassifierNetwork, Preprocessing, ModelCard]:
    """The network of a model version, float32, CPU, in evaluation mode, how it reads pictures, and its card.

    Raises:
        UserError: no card, one of another kind, or one that builds nothing.
        JobError: the weights do not fit the architecture exactly.
    """
    card = read_card(folder, CLASSIFIER_KIND)
    if card.architecture.name != NAME:
        raise UserError(f"{card.spec} is of the architecture {card.architecture.name}, which is unknown.")
    if card.preprocessing is None:
        raise UserError(f"{card.spec} has no preprocessing in its card: write the card anew.")
    network = build_classifier(read_arguments(folder, card, ClassifierArguments))
    load_weights(network, folder, card)
    return network, card.preprocessing, card
