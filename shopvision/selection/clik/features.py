"""What frozen text encoders say of topics; see ``shopvision.training.text_features``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

from torch import Tensor

from shopvision.training.features import Features, FeatureStore, OnProgress
from shopvision.training.text_features import text_features

if TYPE_CHECKING:
    from shopvision.selection.clik.model import TextTower
    from shopvision.selection.clik.topic_tokens import TopicTokenizer
    from shopvision.selection.topic import Topic


def topic_features(
    topics: Sequence[Topic], store: FeatureStore, tower: TextTower, tokenizer: TopicTokenizer, on_progress: OnProgress
) -> Features:
    """Features of ``topics``, each distinct one encoded once; ``tower`` is in evaluation mode."""
    device = next(tower.parameters()).device

    def encode(some: Sequence[Topic]) -> Tensor:
        return tower.features(tokenizer.encode(some).to(device))

    return text_features(topics, lambda topic: json.dumps(astuple(topic)), store, encode, on_progress)
