"""What the training of an encoder starts from: an image network, and a projection that already knows its features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shopvision.encoders.image_networks import image_dimension
from shopvision.encoders.projected_network import ProjectedArguments, ProjectedNetwork
from shopvision.errors import UserError
from shopvision.fashion.encoding.config import ModelConfig
from shopvision.training.pretrained import PretrainedImage, fetch_image

# Directions whose features hardly vary would be blown up without bounds: a share of the mean variance is added to each.
WHITENING_FLOOR = 0.1
# Root mean square of the projection's weights. Vectors are normalised, so it changes nothing but what a step of a given
# rate means beside the weights: the same for features of every scale.
START_SCALE = 0.005


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        image: the image encoder, whose network is the backbone alone.
        network: the backbone with a projection.
        projected: whether the projection came with the image encoder, and stays as it is.
    """

    image: PretrainedImage
    network: ProjectedNetwork
    projected: bool


def start_of(model: ModelConfig, seed: int) -> Start:
    """The network before it has seen a picture; what is new in it is the same in every process.

    Raises:
        UserError: the image encoder cannot be had, or its features are shorter than the vectors are to be.
    """
    image = fetch_image(model.image)
    architecture, backbone, projection = image.card.architecture, image.network, None
    if isinstance(image.network, ProjectedNetwork):
        architecture, backbone = image.network.arguments.backbone, image.network.backbone
        if image.network.arguments.dimension == model.dimension:
            projection = image.network.projection
    width = image_dimension(backbone)
    if width < model.dimension:
        raise UserError(
            f"model.dimension {model.dimension} is more than the {width} numbers that {model.image} gives: lower it."
        )
    torch.manual_seed(seed)
    bias = projection is None or projection.bias is not None
    network = ProjectedNetwork(
        ProjectedArguments(backbone=architecture, dimension=model.dimension, bias=bias), backbone
    ).eval()
    if projection is not None:
        network.projection.load_state_dict(projection.state_dict())
    return Start(replace(image, network=backbone, dimension=width), network, projection is not None)


@torch.no_grad()
def project_main_directions(projection: nn.Linear, features: Tensor, *, whiten: bool) -> None:
    """Let a projection start with the main directions of features (PCA), around their mean.

    Vectors then lie among each other as features do, as far as so few numbers can say it.

    Args:
        projection: to be filled.
        features: (n, width) of training pictures.
        whiten: bring all directions to one scale.

    Raises:
        UserError: there are fewer pictures than directions.
    """
    count, directions = len(features), projection.out_features
    if count <= directions:
        raise UserError(
            f"{count} views of training pictures have no {directions} main directions: lower model.dimension, or set "
            'model.start = "random".'
        )
    exact = features.double()
    mean = exact.mean(dim=0)
    variances, axes = torch.linalg.eigh((exact - mean).T @ (exact - mean) / count)
    variances, axes = variances[-directions:].flip(0).clamp_min(0), axes[:, -directions:].flip(1).T
    # The sign of an axis is free: the same everywhere, whatever library computes it.
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    if whiten:
        axes = axes / (variances + WHITENING_FLOOR * variances.mean()).sqrt()[:, None]
    axes = axes * (START_SCALE / axes.square().mean().sqrt().clamp_min(1e-12))
    projection.weight.copy_(axes)
    if projection.bias is not None:
        projection.bias.copy_(-axes @ mean)


def learning_parameters(backbone: nn.Module, model: ModelConfig) -> list[nn.Parameter]:
    """The weights of an image network that training changes.

    Raises:
        UserError: it has no blocks to tell the last ones by.
    """
    named = list(backbone.named_parameters())
    if model.fine_tune == "none":
        return []
    if model.fine_tune == "all":
        return [weight for _, weight in named]
    blocks = list(dict.fromkeys(block for name, _ in named if (block := block_of(name))))
    if not blocks:
        raise UserError(f'{model.image} has no numbered blocks: set model.fine_tune = "all" or "none".')
    first = blocks[max(0, len(blocks) - model.blocks)]
    start = next(place for place, (name, _) in enumerate(named) if block_of(name) == first)
    return [weight for _, weight in named[start:]]


def block_of(parameter: str) -> str | None:
    """The block that a parameter is of: ``blocks.6.0`` of ``blocks.6.0.conv_pw.weight``; None outside of blocks.

    Networks number their stages, and the blocks in a stage, so it is what stands before the third number at most.
    """
    found = re.match(r"(?:[A-Za-z_]\w*\.)+?\d+(?:\.(?:blocks\.|layers\.)?\d+(?=\.))?(?=\.)", parameter)
    return None if found is None else found[0]


def freeze(network: ProjectedNetwork, learning: Sequence[nn.Parameter]) -> None:
    """Let nothing of the backbone learn but these weights."""
    learns = {id(weight) for weight in learning}
    for weight in network.backbone.parameters():
        weight.requires_grad_(id(weight) in learns)
