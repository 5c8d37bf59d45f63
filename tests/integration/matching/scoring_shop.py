"""A shop whose pair models compare the words of titles, so that every score can be told beforehand."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select

from shopvision.catalogue import upsert_items
from shopvision.database import connect
from shopvision.errors import ItemError
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item import Item
from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows
from shopvision.matching.tables import PairScore
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelVersion
from tests.integration.ledger.conftest import RememberingBroker
from worker.ledger import jobs
from worker.ledger.outbox import relay
from worker.ledger.progress import JobProgress, job_progress
from worker.runner import run_step

TITLES = {
    "a": "Acme drill DX100 cordless 18V",
    "b": "Acme drill DX100 cordless 18V kit",
    "c": "Acme drill DX100 battery",
    "x": "Blue cotton summer dress",
    "y": "Blue cotton summer dress long",
    "z": "Garden chair teak",
}
DIMENSION = 64


def overlap(a: str, b: str) -> float:
    """Shared words among all words: the probability that ``WordScorer`` gives."""
    left, right = set(a.split()), set(b.split())
    return len(left & right) / max(1, len(left | right))


class WordScorer(BaseScorer):
    """A one-tower: the share of common words. Remembers how many pairs and items it was shown.

    Asked to stop, it does so after each pair.
    """

    needs_text, needs_picture = True, False
    preprocessing: Preprocessing | None = None
    vector_dimension: int | None = None

    def __init__(self) -> None:
        self.card = ModelCard(
            name="words",
            tag="1",
            kind="pair_scorer",
            architecture=Architecture(library="shopvision", name="words"),
            source="test",
            thresholds={"same": 0.6, "decision": 0.5, "different": 0.3},
            files={},
        )
        self.pairs = 0
        self.items = 0

    def check(self, item: Item) -> None:
        if not item.title:
            raise ItemError("no_text", f"Item {item.item_id!r} has no title.")

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8] | None] | None) -> Floats:
        raise AssertionError("a one-tower keeps nothing of items")

    def _score(
        self,
        items: Sequence[Item],
        left: Rows,
        right: Rows,
        vectors: Floats | None,
        should_stop: Callable[[], bool] | None,
    ) -> Floats:
        assert (vectors is None) == (self.vector_dimension is None)
        result = np.full(len(left), np.nan, np.float32)
        for row, (a, b) in enumerate(zip(left, right, strict=True)):
            if row and should_stop is not None and should_stop():
                break
            result[row] = overlap(items[a].title, items[b].title)
            self.pairs += 1
        return result


class WordTower(WordScorer):
    """A two-tower: vectors count hashed words."""

    vector_dimension = DIMENSION

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8] | None] | None) -> Floats:
        assert (pictures is None) == (self.preprocessing is None)
        self.items += len(items)
        vectors = np.zeros((len(items), DIMENSION), np.float32)
        for row, item in enumerate(items):
            for word in item.title.split():
                vectors[row, crc32(word.encode()) % DIMENSION] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


class PictureTower(WordTower):
    """One that reads pictures."""

    needs_text, needs_picture = False, True
    preprocessing = Preprocessing(size=(8, 8))

    def check(self, item: Item) -> None:
        if not item.picture:
            raise ItemError("no_picture", f"Item {item.item_id!r} has no picture.")


def add_scorer(name: str, *, tower: bool = False, thresholds: dict[str, float] | None = None) -> str:
    axes = {"interaction": "two_tower" if tower else "one_tower"}
    architecture = Architecture(library="shopvision", name="matcher", arguments={"axes": axes})
    card = ModelCard(
        name=name,
        tag="1",
        kind="pair_scorer",
        architecture=architecture,
        source="test",
        thresholds={"same": 0.6, "different": 0.3} if thresholds is None else thresholds,
        files={},
    )
    with connect() as connection:
        connection.execute(insert(ModelVersion).values(name=name, tag="1", card=card.model_dump(mode="json")))
    return card.spec


class ScoringShop:
    """Items of a test, and the jobs over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, WordScorer] = {"scorer:1": WordScorer(), "blocker:1": WordTower()}
        self.broker = RememberingBroker()

    @property
    def scorer(self) -> WordScorer:
        return self.models["scorer:1"]

    @property
    def blocker(self) -> WordScorer:
        return self.models["blocker:1"]

    def put(self, item_id: str, title: str, picture: str = "file:///nowhere.jpg", **fields: Any) -> None:
        with connect() as connection:
            upsert_items(connection, [{"item_id": item_id, "title": title, "images": [picture], **fields}])

    def submit(self, **params: Any) -> uuid.UUID:
        with connect() as connection:
            return jobs.submit(connection, "score_pairs", params)

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

    def scores(self, model: str = "scorer") -> dict[tuple[str, str], tuple[float, str]]:
        """(left, right) -> (probability, verdict)."""
        with connect() as connection:
            rows = connection.execute(
                select(PairScore.left_item_id, PairScore.right_item_id, PairScore.probability, PairScore.verdict)
                .join(ModelVersion, ModelVersion.model_version_id == PairScore.model_version_id)
                .where(ModelVersion.name == model)
            )
            return {(row.left_item_id, row.right_item_id): (round(row.probability, 4), row.verdict) for row in rows}

    def jobs_of_scores(self) -> dict[tuple[str, str], uuid.UUID]:
        with connect() as connection:
            rows = connection.execute(select(PairScore.left_item_id, PairScore.right_item_id, PairScore.job_id))
            return {(row.left_item_id, row.right_item_id): row.job_id for row in rows}


def count(table: type) -> int:
    with connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def verdict(probability: float) -> str:
    return "same" if probability >= 0.6 else "different" if probability <= 0.3 else "review"


def expected(*pairs: str) -> dict[tuple[str, str], tuple[float, str]]:
    result = {}
    for left, right in map(tuple, pairs):
        probability = overlap(TITLES[left], TITLES[right])
        result[left, right] = (round(probability, 4), verdict(probability))
    return result
