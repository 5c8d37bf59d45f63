"""Image encoders of pair models, and what is known of their features."""

from __future__ import annotations

import torch
from torch import nn

from shopvision.encoders.image_networks import build_timm
from shopvision.models.card import Architecture


def build_frozen_image(image: Architecture) -> nn.Module:
    """An image encoder that stays beside a network, weights still random."""
    return build_timm(image).requires_grad_(requires_grad=False)


def image_dimension(image: nn.Module) -> int:
    """Length of a timm network's features without its classifier."""
    # num_features would be the length before the layers that some networks have between pooling and classifier.
    length: int = image.head_hidden_size  # type: ignore[assignment] # timm sets a number
    return length


def dimension_of(image: Architecture) -> int:
    """``image_dimension`` of a network that is not built."""
    with torch.device("meta"):
        return image_dimension(build_timm(image))
