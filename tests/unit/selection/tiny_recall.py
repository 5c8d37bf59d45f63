"""Seeded dual towers of a few thousand weights, with a real BERT, a real timm network and a real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shopvision.models.card import Architecture, ModelCard
from shopvision.selection.recall.card import RecallArguments, build_recall, save_recall
from shopvision.selection.recall.model import DualTower
from tests.unit.selection.tiny_clik import BERT, PREPROCESSING, tiny_tokenizer


def recall_arguments(image: str = "test_resnet", **changes: Any) -> RecallArguments:
    fields = {
        "text_config": BERT | {"add_pooling_layer": False},
        "pooling": "cls",
        "image": Architecture(name=image, arguments={"num_classes": 0}),
        "dimension": 8,
        "image_head": "two_linear",
        "max_length": 12,
    }
    return RecallArguments(**(fields | changes))


def tiny_recall(wanted: RecallArguments, seed: int = 1) -> DualTower:
    """Every tensor random, also those that start as zeros or ones, so that a lost one shows."""
    torch.manual_seed(seed)
    network = build_recall(wanted, initial_scale=2.0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return network


def save_tiny_recall(
    folder: Path, wanted: RecallArguments | None = None, seed: int = 1, **card_fields: Any
) -> ModelCard:
    """A dual tower as a model version ``tiny-recall``."""
    wanted = wanted or recall_arguments()
    return save_recall(
        folder,
        tiny_recall(wanted, seed),
        wanted,
        tiny_tokenizer(),
        PREPROCESSING,
        **{"name": "tiny-recall", "source": "test"} | card_fields,
    )
