"""Image encoders of pair models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopvision.encoders.image_networks import build_image

if TYPE_CHECKING:
    from torch import nn

    from shopvision.models.card import Architecture


def build_frozen_image(image: Architecture) -> nn.Module:
    """An image encoder that stays beside a network, weights still random."""
    return build_image(image).requires_grad_(requires_grad=False)
