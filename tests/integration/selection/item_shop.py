"""A shop in which texts name colours: models that find and rank pictures by them, and the jobs over its items."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import insert, select

from shopvision import models
from shopvision.catalogue import upsert_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.items.item import Item
from shopvision.models import activate
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelVersion
from shopvision.selection.item_pictures.tables import ImageSelection, ImageSelectionState
from tests.integration.selection.conftest import COLOURS, ColourRanker, MeanColour, RankingShop, unit
from worker.ledger import jobs
from worker.ledger.progress import JobProgress

LEAST = 0.8


class ColourRecall(MeanColour):
    """A text is the sum of the colours that it names."""

    dimension = 3
    logit_scale = 1.0

    def text_of(self, item: Item) -> str:
        return item.title

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts = list(texts)
        named = [[COLOURS[word] for word in text.replace(",", " ").split() if word in COLOURS] for text in texts]
        return unit([np.sum(colours, axis=0) if colours else np.ones(3) for colours in named])


class DarkRanker(MeanColour):
    """People click what is dark, says it: the darker a picture, the higher its score. It has a tower of its own."""

    recall_spec: str | None = None
    dimension = 4
    towers = SimpleNamespace(encode_texts=lambda names: unit(np.ones((len(names), 4))))

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += len(batch)
        bright = batch.reshape(len(batch), -1).mean(axis=1, keepdims=True) / 255
        return unit(np.hstack([bright, 1 - bright, np.zeros((len(batch), 2))]))

    def text_of(self, title: str, names: Sequence[str]) -> str:
        return ",".join(names) or title

    def contexts(self, texts: Sequence[str], entities: Sequence[Sequence[Any]]) -> list[Any]:
        self.told = list(zip(texts, entities, strict=True))
        return [SimpleNamespace(text=text) for text in texts]

    def context(self, text: str, entities: Sequence[Any]) -> Any:
        return self.contexts([text], [entities])[0]

    def scores_of_items(self, pictures: Sequence[NDArray[np.float32]], contexts: Sequence[Any]) -> list[Any]:
        return [vectors[:, 1] - vectors[:, 0] for vectors in pictures]

    def scores(self, pictures: NDArray[np.float32], context: Any) -> Any:
        return self.scores_of_items([pictures], [context])[0]


def add_version(name: str, kind: str, **fields: Any) -> str:
    """A model version without files; returns ``name:1``."""
    arguments = fields.pop("arguments", {})
    card = ModelCard(
        name=name, tag="1", kind=kind, architecture=Architecture(name="test", arguments=arguments), source="test",
        files={}, **fields,
    )  # fmt: skip
    with connect() as connection:
        connection.execute(insert(ModelVersion).values(name=name, tag="1", card=card.model_dump(mode="json")))
    return card.spec


class ItemShop(RankingShop):
    """See the module."""

    def __init__(self, folder: Path, ranker: ColourRanker) -> None:
        super().__init__(folder, ranker)
        self.recall, self.clicks = ColourRecall(), DarkRanker()
        self.models: dict[str, Any] = {"ranker:1": ranker, "recall:1": self.recall, "clicks:1": self.clicks}

    def add(self, item_id: str, title: str, *colours: tuple[int, int, int], **fields: Any) -> None:
        """An item with one picture of each colour."""
        images = [self.paint(f"{item_id}-{number}", colour) for number, colour in enumerate(colours)]
        with connect() as connection:
            upsert_items(connection, [{"item_id": item_id, "title": title, "images": images, **fields}])

    def submit_kind(self, kind: str, **params: Any) -> uuid.UUID:
        with connect() as connection:
            return jobs.submit(connection, kind, params)

    def run_kind(self, kind: str, **params: Any) -> JobProgress:
        from worker.ledger.progress import job_progress

        job_id = self.submit_kind(kind, **params)
        self.work()
        return job_progress(job_id)

    def select(self, **params: Any) -> JobProgress:
        return self.run_kind("select_images", **params)

    def publish(self, **params: Any) -> JobProgress:
        """Embed for texts, and publish."""
        return self.run_kind("refresh_embeddings", **{"role": "image_recall", **params})

    def selected(self, item_id: str, model: str = "recall") -> list[Any]:
        """Rows of the newest selection with the pictures' file names, best first."""
        with connect() as connection:
            rows = connection.execute(
                select(*ImageSelection.__table__.c, ItemImage.uri)
                .join(ItemImage, ItemImage.image_id == ImageSelection.image_id)
                .join(ModelVersion, ModelVersion.model_version_id == ImageSelection.model_version_id)
                .where(ImageSelection.item_id == item_id, ModelVersion.name == model)
                .order_by(ImageSelection.rank)
            ).all()
        return [SimpleNamespace(**row._mapping, name=Path(row.uri).stem) for row in rows]

    def names(self, item_id: str, model: str = "recall") -> list[str]:
        return [one.name for one in self.selected(item_id, model)]

    def selection_state(self, item_id: str) -> Any:
        with connect() as connection:
            return connection.execute(
                select(*ImageSelectionState.__table__.c).where(ImageSelectionState.item_id == item_id)
            ).one_or_none()


def open_shop(folder: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]) -> ItemShop:
    """A shop without items, in which a catalogue encoder and a recall model are active."""
    pictures = folder / "pictures"
    pictures.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(pictures), SHOPVISION_OBJECT_STORE=f"file://{folder}/store")
    shop = ItemShop(pictures, ColourRanker())
    monkeypatch.setattr(models, "load", shop.models.__getitem__)
    activate("catalogue_encoder", add_version("encoder", "image_encoder"))
    activate("image_recall", add_version("recall", "image_recall", thresholds={"score": LEAST}))
    return shop
