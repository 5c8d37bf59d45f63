"""Networks read at every stage: means and spreads of their maps, which know colours and patterns, beside the features.

A network that was trained to name objects forgets on the way up what does not tell objects apart. What its lower stages
see, and how much that differs over the picture, stands beside the pooled features (as statistics of maps describe the
style of a picture: Huang and Belongie 2017); each number has the same weight.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.architecture_arguments import ArchitectureArguments
from shopvision.encoders.image_networks import build_timm, image_dimension
from shopvision.errors import UserError
from shopvision.models.card import Architecture

NAME = "stage_pooling"
SMALL = 1e-6  # beside a variance: the root has no gradient at 0, where a map is the same all over


class StagePoolingArguments(ArchitectureArguments):
    """What a network is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        network: of timm, without classifier.
    """

    network: Architecture

    @field_validator("network")
    @classmethod
    def _of_timm(cls, network: Architecture) -> Architecture:
        if network.library != "timm":
            raise ValueError("the stages of networks of timm alone can be read")
        return network


class StagePooling(nn.Module):
    """(n, 3, H, W) -> (n, d): the pooled features, then of each stage, from the first, mean and spread over its map.

    Each of these groups is brought to the length of a vector of its size whose elements have the mean square 1.

    Attributes:
        head_hidden_size: d, under timm's name.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take over ``network``.

        Raises:
            UserError: it does not tell what its stages see.
        """
        super().__init__()
        widths = _stage_widths(network)
        if not widths:
            raise UserError(
                f"{type(network).__name__} does not tell what its stages see: read its last features alone."
            )
        self.network = network
        self.head_hidden_size = image_dimension(network) + 2 * sum(widths)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        network: Any = self.network
        last, maps = network.forward_intermediates(images)
        groups = [network.forward_head(last, pre_logits=True)]
        for one in maps:
            variance, mean = torch.var_mean(one, dim=(2, 3), correction=0)
            groups += [mean, (variance + SMALL).sqrt()]
        return torch.cat([functional.normalize(one, dim=1) * math.sqrt(one.shape[1]) for one in groups], dim=1)


def _stage_widths(network: nn.Module) -> list[int]:
    """Channels of each stage; none of a network that has no stages, each coarser than the one below."""
    if not hasattr(network, "forward_intermediates"):
        return []
    told: Any = network.feature_info
    return [stage["num_chs"] for stage in told] if len({stage["reduction"] for stage in told}) > 1 else []


def build_stage_pooling(arguments: StagePoolingArguments) -> StagePooling:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: timm has no such network, or it does not tell what its stages see.
    """
    return StagePooling(build_timm(arguments.network)).eval()


def with_stages(architecture: Architecture) -> Architecture | None:
    """The architecture that reads all stages of this one; None where it does not tell what they see."""
    if architecture.library != "timm":
        return None
    with torch.device("meta"):
        widths = _stage_widths(build_timm(architecture))
    if not widths:
        return None
    arguments = StagePoolingArguments(network=architecture)
    return Architecture(library="shopvision", name=NAME, arguments=arguments.model_dump(mode="json"))
