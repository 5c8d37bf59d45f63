"""Frozen features of real pictures and titles, and what plain linear heads make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shopvision.images import PictureDoor
from shopvision.selection.clik.card import LoadedClik
from shopvision.selection.topic import Topic
from shopvision.settings import get_settings
from shopvision.training.pretrained import all_stages, fetch_image, survey_pictures
from shopvision.training.run import TrainingRun

TEXT, IMAGE = "wheel:minilm", "wheel:efficientnet-lite0"

Vectors = NDArray[np.float32]


@contextmanager
def door_to(folder: Path) -> Iterator[PictureDoor]:
    """A door that may read the pictures below ``folder``."""
    with PictureDoor(get_settings().model_copy(update={"image_roots": (folder.resolve(),)})) as door:
        yield door


def photo_features(paths: Sequence[Path], output: Path) -> Tensor:
    """(n, d) unit vectors of photos by the frozen image encoder, all stages, kept where trainings keep theirs."""
    image = all_stages(fetch_image(IMAGE))
    assert image is not None
    with door_to(paths[0].parent) as door:
        uris = [path.resolve().as_uri() for path in paths]
        survey = survey_pictures(uris, image, TrainingRun(output=output), door, encode=True)
    assert survey.readable.all()
    assert survey.features is not None
    return survey.features.take(np.arange(len(paths)))


def last_features(features: Tensor) -> Tensor:
    """What the encoder gives without its stages: the pooled features stand first."""
    return functional.normalize(features[:, : fetch_image(IMAGE).dimension], dim=1)


@torch.inference_mode()
def text_features(clik: LoadedClik, topics: list[Topic]) -> Tensor:
    """(n, d) unit vectors of the frozen text encoder, as CLIK sees its topics."""
    parts = [
        clik.clik.txt_encoder.features(clik.topic_tokenizer.encode(topics[start : start + 64]))
        for start in range(0, len(topics), 64)
    ]
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
