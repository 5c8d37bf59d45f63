"""Image networks of timm: built by name and arguments, filled strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.errors import UserError
from shopvision.models.version_folder import load_weights

if TYPE_CHECKING:
    from torch import nn

    from shopvision.models.card import Architecture, ModelCard

KIND = "image_encoder"


def build_timm(architecture: Architecture) -> nn.Module:
    """The network of a timm architecture, in evaluation mode, weights still random.

    Raises:
        UserError: timm has no such architecture, or refuses the arguments.
    """
    import timm

    if architecture.library != "timm" or not timm.is_model(architecture.name):
        raise UserError(
            f"'{architecture.name}' is not a timm architecture of this installation. Check the card, or update timm."
        )
    try:
        network: nn.Module = timm.create_model(architecture.name, pretrained=False, **architecture.arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"timm cannot build '{architecture.name}' with {architecture.arguments}: {error}.") from None
    return network.eval()


def load_network(folder: Path, card: ModelCard) -> nn.Module:
    """The network of a model version with its weights, float32 on CPU, in evaluation mode.

    Raises:
        UserError: unknown architecture.
        JobError: the weights do not fit it exactly.
    """
    network = build_timm(card.architecture)
    load_weights(network, folder, card)
    return network
