"""What frozen text encoders say of topics; see ``shopvision.training.features``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import torch

from shopvision.training.features import Features, FeatureStore, OnProgress

if TYPE_CHECKING:
    from shopvision.selection.clik.model import TextTower
    from shopvision.selection.clik.topic_tokens import TopicTokenizer
    from shopvision.selection.topic import Topic

TEXTS_AT_ONCE = 64


@torch.inference_mode()
def text_features(
    topics: Sequence[Topic], store: FeatureStore, tower: TextTower, tokenizer: TopicTokenizer, on_progress: OnProgress
) -> Features:
    """Features of ``topics``, each distinct one encoded once; ``tower`` is in evaluation mode."""
    keys = [hashlib.sha256(json.dumps(astuple(topic)).encode()).digest() for topic in topics]
    with store.writing():
        new = {key: topic for key, topic in zip(keys, topics, strict=True) if key not in store}
        # Texts of like length side by side: less padding to compute.
        waiting = sorted(new.items(), key=lambda item: sum(map(len, astuple(item[1]))))
        device = next(tower.parameters()).device
        for start in range(0, len(waiting), TEXTS_AT_ONCE):
            chunk = waiting[start : start + TEXTS_AT_ONCE]
            tokens = tokenizer.encode([topic for _, topic in chunk]).to(device)
            vectors = torch.nn.functional.normalize(tower.features(tokens).float(), dim=1)
            store.append([key for key, _ in chunk], vectors.half().cpu().numpy())
            on_progress(start + len(chunk), len(waiting))
    return Features(store.vectors(), store.rows(keys))
