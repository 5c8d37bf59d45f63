"""Posts of a test, the models that label them, and the jobs over them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import insert, select

from shopvision import models
from shopvision.database import connect
from shopvision.fashion.detection.predict import Detector
from shopvision.fashion.posts.tables import LabelledPost, TrainingPair
from shopvision.models import activate
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelVersion
from tests.integration.ledger.conftest import RememberingBroker
from tests.integration.posts.colour_models import (
    COLOUR,
    ColourClassifier,
    ColourNetwork,
    photo,
    thumbnail,
)
from worker.ledger import jobs
from worker.ledger.outbox import relay
from worker.ledger.progress import JobProgress, job_progress
from worker.runner import run_step


def add_version(name: str, kind: str) -> str:
    """A model version without files; returns ``name:tag``."""
    card = ModelCard(
        name=name, tag="1", kind=kind, architecture=Architecture(library="shopvision", name="colours"), source="test",
        files={},
    )  # fmt: skip
    with connect() as connection:
        connection.execute(insert(ModelVersion).values(name=name, tag="1", card=card.model_dump(mode="json")))
    return card.spec


class PostShop:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network, self.classifier = ColourNetwork(), ColourClassifier()
        self.models: dict[str, Any] = {
            "detector:1": Detector(self.network, device=torch.device("cpu")), "classifier:1": self.classifier,
        }  # fmt: skip
        self.broker = RememberingBroker()

    def save(self, name: str, picture: Image.Image) -> str:
        """The name of a picture's file."""
        picture.save(self.folder / name)
        return name

    def thumbnails(self, *labels: str, prefix: str = "") -> list[dict[str, Any]]:
        """Products of some classes."""
        return [
            {
                "product_id": f"{prefix}{label}", "title": f"A {label}",
                "thumbnail": self.save(f"{prefix}{label}.png", thumbnail(COLOUR[label])),
            }
            for label in labels
        ]  # fmt: skip

    def post(self, post_id: str, *labels: str, seed: int, **fields: Any) -> dict[str, Any]:
        """A post that shows garments and tags one product of each class."""
        shown = photo(*(COLOUR[label] for label in labels), seed=seed)
        record = {
            "post_id": post_id, "photo": self.save(f"{post_id}.png", shown), "products": self.thumbnails(*labels),
        }  # fmt: skip
        return record | fields

    def file(self, *records: dict[str, Any], name: str = "posts.jsonl") -> str:
        """The path of a file of posts."""
        (self.folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(self.folder / name)

    def submit(self, **params: Any) -> uuid.UUID:
        with connect() as connection:
            return jobs.submit(connection, "label_posts", params)

    def work(self, limit: int = 1000) -> None:
        """Deliver messages until none is left."""
        relay(self.broker, 64)
        while self.broker.messages and limit:
            run_step(self.broker.messages.popleft()[1], "test@here")
            relay(self.broker, 64)
            limit -= 1

    def run(self, **params: Any) -> JobProgress:
        job_id = self.submit(**params)
        self.work()
        return job_progress(job_id)

    def label(self, *records: dict[str, Any], **params: Any) -> JobProgress:
        """A job over the posts of a file."""
        return self.run(posts_file=self.file(*records), **params)


def open_shop(folder: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]) -> PostShop:
    """A shop without posts, whose models are active."""
    pictures = folder / "pictures"
    pictures.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(pictures), SHOPVISION_OBJECT_STORE=f"file://{folder}/store")
    shop = PostShop(pictures)
    monkeypatch.setattr(models, "load", shop.models.__getitem__)
    activate("fashion_detector", add_version("detector", "fashion_detector"))
    activate("thumbnail_classifier", add_version("classifier", "thumbnail_classifier"))
    return shop


def labelled() -> dict[str, tuple[str, str | None]]:
    """Post -> state and reason."""
    with connect() as connection:
        rows = connection.execute(select(LabelledPost.post_id, LabelledPost.state, LabelledPost.reason))
        return {row.post_id: (row.state, row.reason) for row in rows}


def pairs() -> dict[tuple[str, str], str]:
    """(post, product) -> ``kept`` or the reason why not."""
    with connect() as connection:
        rows = connection.execute(select(TrainingPair.post_id, TrainingPair.product_id, TrainingPair.reason))
        return {(row.post_id, row.product_id): row.reason or "kept" for row in rows}
