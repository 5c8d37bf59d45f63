"""Networks with TensorFlow's SAME padding, fixed for one input size whatever size they are given.

timm pads each convolution by the picture at hand. ``efficientnet_pytorch`` computes the padding once, for the size that
a variant was made for (B3: 300 x 300), and keeps it: at 224 two of B3's convolutions then pad (2, 2) where SAME would
pad (1, 2), and trained weights expect what they were trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.architecture_arguments import ArchitectureArguments
from shopvision.encoders.image_networks import build_timm
from shopvision.errors import UserError
from shopvision.models.card import Architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "fixed_padding"


class FixedPaddingArguments(ArchitectureArguments):
    """What a network is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        network: of timm.
        size: edge of the square pictures that the padding is right for, pixels.
    """

    network: Architecture
    size: int = Field(gt=0)

    @field_validator("network")
    @classmethod
    def _of_timm(cls, network: Architecture) -> Architecture:
        if network.library != "timm":
            raise ValueError("the padding of networks of timm alone can be fixed")
        return network


class _PaddedConv2d(nn.Conv2d):
    """A convolution that pads its input by ``edges`` first: (left, right, top, bottom)."""

    edges: tuple[int, int, int, int]

    def forward(self, images: Tensor) -> Tensor:
        """See ``nn.Conv2d``."""
        return super().forward(functional.pad(images, self.edges))


def build_fixed_padding(arguments: FixedPaddingArguments) -> nn.Module:
    """The timm network with fixed padding; names of layers and tensors are those of timm. Evaluation mode.

    Raises:
        UserError: timm has no such network, or none of its convolutions pads by its input's size.
    """
    network = build_timm(arguments.network)
    edges = _edges(arguments)
    if not edges:
        raise UserError(f"'{arguments.network.name}' pads no convolution by its input's size: take it as it is.")
    for name, padding in edges.items():
        network.set_submodule(name, _fixed(network.get_submodule(name), padding))
    return network.eval()


def _fixed(convolution: Any, edges: tuple[int, int, int, int]) -> nn.Module:
    left, right, top, bottom = edges
    is_even = left == right and top == bottom
    fixed = (nn.Conv2d if is_even else _PaddedConv2d)(
        convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride,
        (top, left) if is_even else 0, convolution.dilation, convolution.groups, convolution.bias is not None,
        device="meta",
    )  # fmt: skip
    fixed.weight, fixed.bias = convolution.weight, convolution.bias
    if isinstance(fixed, _PaddedConv2d):
        fixed.edges = edges
    return fixed


def _edges(arguments: FixedPaddingArguments) -> dict[str, tuple[int, int, int, int]]:
    """Padding of each convolution that pads by its input's size, by name; found by watching a pass without numbers."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same_arg

    found: dict[str, tuple[int, int, int, int]] = {}
    with torch.device("meta"), torch.no_grad():
        network = build_timm(arguments.network)
        for name, module in network.named_modules():
            if isinstance(module, Conv2dSame):

                def watch(module: nn.Module, inputs: Sequence[Tensor], name: str = name) -> None:
                    convolution: Any = module
                    left, right, top, bottom = pad_same_arg(
                        list(inputs[0].shape[-2:]), list(convolution.kernel_size), list(convolution.stride),
                        list(convolution.dilation),
                    )  # fmt: skip
                    found[name] = (left, right, top, bottom)

                module.register_forward_pre_hook(watch)
        network(torch.empty(1, 3, arguments.size, arguments.size))
    return found
