"""Image networks, of timm and transformers, with a projection or without: built from cards, filled strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.errors import UserError
from shopvision.models.version_folder import load_weights

if TYPE_CHECKING:
    from torch import nn

    from shopvision.models.card import Architecture, ModelCard

KIND = "image_encoder"


def build_image(architecture: Architecture) -> nn.Module:
    """The network of an image encoder's architecture, (n, 3, H, W) -> (n, d), in evaluation mode, weights random.

    Raises:
        UserError: there is no such architecture, or it refuses the arguments.
    """
    from shopvision.encoders import fixed_padding, projected_network, stage_pooling
    from shopvision.encoders.transformers_images import build_transformers_images

    match architecture.library:
        case "transformers":
            return build_transformers_images(architecture)
        case "shopvision" if architecture.name == projected_network.NAME:
            return projected_network.build_projected(projected_network.ProjectedArguments.of(architecture))
        case "shopvision" if architecture.name == fixed_padding.NAME:
            return fixed_padding.build_fixed_padding(fixed_padding.FixedPaddingArguments.of(architecture))
        case "shopvision" if architecture.name == stage_pooling.NAME:
            return stage_pooling.build_stage_pooling(stage_pooling.StagePoolingArguments.of(architecture))
        case _:
            return build_timm(architecture)


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


def image_dimension(network: nn.Module) -> int:
    """Length of the vectors of a network that ``build_image`` made."""
    # num_features would be the length before the layers that some networks have between pooling and classifier.
    length: int = network.head_hidden_size  # type: ignore[assignment] # timm sets a number
    return length


def dimension_of(architecture: Architecture) -> int:
    """``image_dimension`` of a network that is not built.

    Raises:
        UserError: see ``build_image``.
    """
    import torch

    with torch.device("meta"):
        return image_dimension(build_image(architecture))


def load_network(folder: Path, card: ModelCard) -> nn.Module:
    """The network of a model version with its weights, float32 on CPU, in evaluation mode.

    Raises:
        UserError: unknown architecture.
        JobError: the weights do not fit it exactly.
    """
    network = build_image(card.architecture)
    load_weights(network, folder, card)
    return network
