"""Detectors as model versions: a card that says the family and what it is built from, and ``model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shopvision.errors import UserError
from shopvision.fashion.detection.network import DetectionNetwork
from shopvision.fashion.detection.pyramid_network import PyramidArguments, PyramidNetwork, build_pyramid
from shopvision.fashion.detection.transformers_network import (
    TransformersArguments,
    TransformersNetwork,
    build_transformers,
)
from shopvision.fashion.kinds import KIND
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import load_weights, read_arguments, read_card, weights_file, write_version


def save_detector(folder: Path, network: DetectionNetwork, *, name: str, source: str, **card_fields: Any) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        network: the detector.
        name: of the model.
        source: where the weights came from.
        card_fields: further fields of ``ModelCard``: tag, licence, training_data, metrics, thresholds.
    """
    return write_version(
        folder,
        [weights_file(network.state_dict())],
        name=name,
        kind=KIND,
        architecture=Architecture(
            library="shopvision", name=network.family, arguments=network.arguments.model_dump(mode="json")
        ),
        source=source,
        **card_fields,
    )


def load_network(folder: Path) -> tuple[DetectionNetwork, ModelCard]:
    """The network of a model version, float32, CPU, in evaluation mode, and its card.

    Raises:
        UserError: no card, one of another kind, or one that builds nothing.
        JobError: the weights do not fit the architecture exactly.
    """
    card = read_card(folder, KIND)
    network: DetectionNetwork
    match card.architecture.name:
        case TransformersNetwork.family:
            network = build_transformers(read_arguments(folder, card, TransformersArguments))
        case PyramidNetwork.family:
            network = build_pyramid(read_arguments(folder, card, PyramidArguments))
        case unknown:
            raise UserError(f"{card.spec} is a {KIND} of the architecture {unknown}, which is unknown.")
    load_weights(network, folder, card)
    return network, card
