"""Small members of a composed encoder, as model versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch

from shopvision.encoders.image_networks import KIND
from shopvision.fashion.detection.card import save_detector
from shopvision.fashion.detection.pyramid_network import PyramidArguments, build_pyramid
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture
from shopvision.models.version_folder import weights_file, write_version

LABELS = ("bag", "dress", "shoes")
DIMENSION = 256


def save_tiny_detector(folder: Path, *, name: str = "finder", spread: float = 0.3) -> Path:
    """A detector with random weights that sees a good many garments in any picture; none with a spread of 0."""
    torch.manual_seed(5)
    backbone = Architecture(name="test_efficientnet", arguments={"num_classes": 0})
    half = (0.5, 0.5, 0.5)
    arguments = PyramidArguments(backbone=backbone, labels=LABELS, mean=half, std=half, longest_side=96, channels=64)
    network = build_pyramid(arguments)
    for weight in network.fcos.head.parameters():
        torch.nn.init.normal_(weight, std=spread) if spread else torch.nn.init.constant_(weight, -1.0)
    save_detector(folder, network, name=name, source="test")
    return folder


def save_tiny_encoder(folder: Path, *, name: str = "eye", seed: int = 1, size: int = 32, **fields: Any) -> Path:
    """An encoder with random weights, ``DIMENSION`` numbers long."""
    torch.manual_seed(seed)
    network = timm.create_model("test_efficientnet", num_classes=0).eval()
    values: dict[str, Any] = {
        "architecture": Architecture(name="test_efficientnet", arguments={"num_classes": 0}),
        "preprocessing": Preprocessing(size=(size, size), resize_mode="squash"),
        "dimension": DIMENSION,
    }
    write_version(folder, [weights_file(network.state_dict())], name=name, kind=KIND, source="test", **values | fields)
    return folder
