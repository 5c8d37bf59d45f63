"""Small image networks with seeded weights."""

from __future__ import annotations

from pathlib import Path

import torch

from shopvision.encoders.image_networks import build_image
from shopvision.encoders.projected_network import ProjectedArguments, ProjectedNetwork, save_projected
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture

PREPROCESSING = Preprocessing(size=(32, 32), interpolation="bilinear", resize_mode="squash")
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
VIT = {
    "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32,
}  # fmt: skip
RESNET = Architecture(name="test_resnet", arguments={"num_classes": 0})


def transformers_network(name: str, pooling: str = "pooler") -> Architecture:
    config = {"swin": SWIN, "vit": VIT}[name]
    return Architecture(library="transformers", name=name, arguments={"config": config, "pooling": pooling})


def projected(backbone: Architecture, dimension: int = 6, *, bias: bool = True) -> ProjectedNetwork:
    torch.manual_seed(3)
    arguments = ProjectedArguments(backbone=backbone, dimension=dimension, bias=bias)
    return ProjectedNetwork(arguments, build_image(backbone)).eval()


def save_tiny_projected(folder: Path, backbone: Architecture = RESNET, dimension: int = 6) -> ProjectedNetwork:
    """A projected network as a model version; its network."""
    network = projected(backbone, dimension)
    save_projected(folder, network, PREPROCESSING, name="tiny", source="made")
    return network
