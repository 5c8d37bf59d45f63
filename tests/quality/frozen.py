"""Frozen features of real pictures and titles, and what plain linear heads make of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.encoders.text_networks import pool
from shopvision.images import PictureDoor
from shopvision.images.outcome import Embedded, ImageTask
from shopvision.images.pipeline import EmbeddingPipeline
from shopvision.models.importers import fetch
from shopvision.selection.clik.card import LoadedClik
from shopvision.selection.topic import Topic
from shopvision.settings import get_settings

TEXT, IMAGE = "wheel:minilm", "wheel:efficientnet-lite0"

Vectors = NDArray[np.float32]


@contextmanager
def door_to(folder: Path) -> Iterator[PictureDoor]:
    """A door that may read the pictures below ``folder``."""
    with PictureDoor(get_settings().model_copy(update={"image_roots": (folder.resolve(),)})) as door:
        yield door


def picture_features(paths: list[Path], model_folder: Path) -> Tensor:
    """(n, d) unit vectors of the frozen image encoder, which is put into ``model_folder``."""
    fetch(IMAGE, model_folder)
    encoder = load_image_encoder(model_folder, device="cpu", compile_mode="never")
    features = torch.zeros(len(paths), encoder.dimension)
    with door_to(paths[0].parent) as door:
        tasks = [ImageTask(row, path.resolve().as_uri()) for row, path in enumerate(paths)]
        for outcomes in EmbeddingPipeline(encoder, door).stream(tasks):
            for outcome in outcomes:
                assert isinstance(outcome, Embedded)
                features[outcome.image_id] = torch.from_numpy(np.frombuffer(outcome.vector, "<f2").astype(np.float32))
    return features


@torch.inference_mode()
def text_features(clik: LoadedClik, topics: list[Topic]) -> Tensor:
    """(n, d) unit vectors of the frozen text encoder, as CLIK sees its topics."""
    parts = [
        clik.clik.txt_encoder.features(clik.topic_tokenizer.encode(topics[start : start + 64]))
        for start in range(0, len(topics), 64)
    ]
    return functional.normalize(torch.cat(parts), dim=1)


@torch.inference_mode()
def sentence_features(clik: LoadedClik, texts: list[str]) -> Tensor:
    """(n, d) unit vectors of plain texts, as the frozen text encoder was trained to give them."""
    tokenizer, tower = clik.topic_tokenizer.tokenizer, clik.clik.txt_encoder
    parts = []
    for start in range(0, len(texts), 64):
        tokens = tokenizer(texts[start : start + 64], padding=True, return_tensors="pt")
        parts.append(pool(tower.enc(**tokens), tokens["attention_mask"], tower.pooling))
    return functional.normalize(torch.cat(parts), dim=1)


def fit_linear_heads(
    texts: Tensor, pictures: Tensor, *, dimension: int, rate: float, temperature: float, seed: int, epochs: int = 20
) -> tuple[nn.Linear, nn.Linear]:
    """Two linear heads on frozen unit features: symmetric InfoNCE in batches of 512, AdamW, warm-up and cosine."""
    torch.manual_seed(seed)
    heads = nn.Linear(texts.shape[1], dimension), nn.Linear(pictures.shape[1], dimension)
    optimizer = torch.optim.AdamW([*heads[0].parameters(), *heads[1].parameters()], lr=rate)
    batches = len(texts) // 512
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches, pct_start=0.05)
    own = torch.arange(512)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts))[: batches * 512].view(batches, 512):
            topic, picture = through(heads[0], texts[rows]), through(heads[1], pictures[rows])
            logits = topic @ picture.T / temperature
            loss = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
            optimizer.zero_grad()
            (loss / 2).backward()
            optimizer.step()
            schedule.step()
    return heads


def through(head: nn.Linear, features: Tensor) -> Tensor:
    """Unit vectors; features of the length that a linear layer is initialised for."""
    return functional.normalize(head(features * features.shape[1] ** 0.5), dim=1)
