"""A shop of coloured pictures, and a ranker for which a topic is a colour."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import func, insert, select

from shopvision import models
from shopvision.catalogue import upsert_items, upsert_plans
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.index.tables import Embedding
from shopvision.models import activate
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelVersion
from shopvision.selection.tables import PlanRanking, PlanRankingState
from shopvision.selection.topic import Topic
from tests.integration.ledger.conftest import RememberingBroker
from worker.ledger import jobs
from worker.ledger.outbox import relay
from worker.ledger.progress import JobProgress, job_progress
from worker.runner import run_step

PREPROCESSING = Preprocessing(size=(8, 8), crop_fraction=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
PURPLE, OLIVE, GREY = (200, 0, 100), (100, 80, 0), (100, 100, 100)
COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def count(table: type) -> int:
    with connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def unit(values: Sequence[Sequence[float]] | NDArray[Any]) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


class MeanColour:
    """The mean colour, scaled to unit length; remembers how many pictures it was shown."""

    preprocessing = PREPROCESSING
    batch_size = 4

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += len(batch)
        return unit(batch.reshape(len(batch), -1, 3).mean(axis=1) + 1.0)


class ColourRanker:
    """Prefers the colour that a topic's name begins with."""

    def __init__(self) -> None:
        self.image_encoder = MeanColour()
        self.topics = 0
        self.dates: list[str] = []

    def query_vectors(self, topics: Sequence[Topic]) -> NDArray[np.float32]:
        if any(len(topic.cat1) > 100 for topic in topics):
            raise UserError("The categories are too long.")
        self.topics += len(topics)
        self.dates += [topic.date for topic in topics]
        return unit([COLOURS[topic.name.split()[0]] for topic in topics])


def add_model(name: str, kind: str, tag: str = "1") -> str:
    card = ModelCard(
        name=name, tag=tag, kind=kind, architecture=Architecture(name="test"), source="test", dimension=3, files={}
    )
    with connect() as connection:
        connection.execute(insert(ModelVersion).values(name=name, tag=tag, card=card.model_dump(mode="json")))
    return card.spec


class RankingShop:
    """Items and plans of a test, and the jobs over them."""

    def __init__(self, folder: Path, ranker: ColourRanker) -> None:
        self.folder = folder
        self.ranker = ranker
        self.broker = RememberingBroker()
        self.process = "test@here"

    @property
    def seen(self) -> int:
        """Pictures that went through the model until now."""
        return self.ranker.image_encoder.seen

    def paint(self, name: str, colour: tuple[int, int, int]) -> str:
        """A picture of one colour; returns its address."""
        path = self.folder / f"{name}.png"
        Image.new("RGB", (8, 8), colour).save(path)
        return path.as_uri()

    def add_item(self, item_id: str, *colours: tuple[int, int, int]) -> None:
        """An item with one picture for each colour."""
        images = [self.paint(f"{item_id}-{number}", colour) for number, colour in enumerate(colours)]
        self.upsert_item(item_id, *images)

    def upsert_item(self, item_id: str, *images: str) -> None:
        with connect() as connection:
            upsert_items(connection, [{"item_id": item_id, "images": list(images)}])

    def add_plan(self, plan_id: str, name: str, *members: str, **slots: Any) -> None:
        with connect() as connection:
            upsert_plans(connection, [{"plan_id": plan_id, "name": name, "member_item_ids": list(members), **slots}])

    def image(self, item_id: str, position: int = 0) -> int:
        with connect() as connection:
            query = select(ItemImage.image_id).where(ItemImage.item_id == item_id, ItemImage.position == position)
            return int(connection.scalars(query).one())

    def refreshed(self, item_id: str, sha256: bytes, version: str = "encoder", regions: Sequence[int] = (0,)) -> None:
        """The catalogue's encoder has seen the item's leading picture, and embedded some regions of it."""
        with connect() as connection:
            model = connection.scalars(select(ModelVersion.model_version_id).where(ModelVersion.name == version)).one()
            values = {"image_sha256": sha256, "source_fingerprint": "x", "vector": b"\0" * 6}
            image_id = self.image(item_id)
            rows = [{"model_version_id": model, "image_id": image_id, "region": one, **values} for one in regions]
            connection.execute(
                Embedding.__table__.delete().where(Embedding.image_id == image_id, Embedding.model_version_id == model)
            )  # type: ignore[attr-defined]
            connection.execute(insert(Embedding), rows)

    def submit(self, **params: Any) -> uuid.UUID:
        with connect() as connection:
            return jobs.submit(connection, "rank_plans", params)

    def work(self) -> None:
        """Deliver messages until none is left."""
        relay(self.broker, 64)
        while self.broker.messages:
            run_step(self.broker.messages.popleft()[1], self.process)
            relay(self.broker, 64)

    def run(self, **params: Any) -> JobProgress:
        job_id = self.submit(**params)
        self.work()
        return job_progress(job_id)

    def ranking(self, plan_id: str, model: str = "ranker") -> list[tuple[int, str, float]]:
        """(rank, item_id, score), best first."""
        with connect() as connection:
            rows = connection.execute(
                select(PlanRanking.rank, ItemImage.item_id, PlanRanking.score)
                .join(ItemImage, ItemImage.image_id == PlanRanking.image_id)
                .join(ModelVersion, ModelVersion.model_version_id == PlanRanking.model_version_id)
                .where(PlanRanking.plan_id == plan_id, ModelVersion.name == model)
                .order_by(PlanRanking.rank)
            )
            return [(row.rank, row.item_id, row.score) for row in rows]

    def state(self, plan_id: str) -> Any:
        with connect() as connection:
            return connection.execute(
                select(*PlanRankingState.__table__.c).where(PlanRankingState.plan_id == plan_id)
            ).one_or_none()


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> RankingShop:
    """No items yet; a catalogue encoder and a plan ranker are active."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder))
    ranker = ColourRanker()
    monkeypatch.setattr(models, "load", lambda spec: ranker)
    activate("catalogue_encoder", add_model("encoder", "image_encoder"))
    activate("plan_ranker", add_model("ranker", "plan_ranker"))
    return RankingShop(folder, ranker)


@pytest.fixture
def palette(shop: RankingShop) -> RankingShop:
    """Six items of one colour each, and a plan for red that has them all."""
    colours = {"red": RED, "green": GREEN, "blue": BLUE, "purple": PURPLE, "olive": OLIVE, "grey": GREY}
    for name, colour in colours.items():
        shop.add_item(name, colour)
    shop.add_plan("p", "red sale", *colours)
    return shop
