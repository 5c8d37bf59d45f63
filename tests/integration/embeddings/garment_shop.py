"""A shop whose pictures show garments of one colour each, and composed encoders that know the colours."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from shopvision.catalogue import upsert_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import Embedding
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelVersion
from tasks.refresh_embeddings import RefreshEmbeddings, RefreshParams
from tests.garment_pictures import Finder, MeanColour, composed
from worker.kinds import ChunkResult

CLASSES = {"Shoes": "shoes", "Bags": "bag"}
KIND = RefreshEmbeddings()


@dataclass
class GarmentShop:
    """Pictures in ``folder``; the encoders that ``models.load`` gives, by ``name:tag``."""

    folder: Path
    encoders: dict[str, Any]

    def add_version(self, name: str, kind: str, arguments: dict[str, Any] | None = None) -> str:
        """A row of the registry without files; returns ``name:tag``."""
        architecture = Architecture(library="shopvision", name="test", arguments=arguments or {})
        card = ModelCard(name=name, tag="1", kind=kind, architecture=architecture, source="test", dimension=3, files={})
        with connect() as connection:
            connection.execute(insert(ModelVersion).values(name=name, tag="1", card=card.model_dump(mode="json")))
        return card.spec

    def compose(self, name: str, finder: Finder, eye: MeanColour, **policy: Any) -> str:
        """A composed encoder that ``models.load`` gives; returns ``name:tag``."""
        encoder = composed(finder, eye, classes=CLASSES, **policy)
        arguments = CompositionArguments(
            detector="finder:1", encoder="eye:1", policy=encoder.policy, classes=encoder.classes
        )
        spec = self.add_version(name, "composed_encoder", arguments.model_dump(mode="json"))
        self.encoders[spec] = encoder
        return spec

    def put(self, item_id: str, category: str, **pictures: bytes) -> None:
        """An item with these pictures, by name; those that have the name of another item's are shared."""
        uris = []
        for name, data in pictures.items():
            path = self.folder / f"{name}.png"
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
            uris.append(path.as_uri())
        with connect() as connection:
            upsert_items(connection, [{"item_id": item_id, "category": category, "images": uris}])

    def refresh(
        self, model: str, *, should_stop: Callable[[], bool] = lambda: False, **params: Any
    ) -> tuple[list[str], ChunkResult]:
        """What a job does, in one chunk: the keys that it looked at, and what they came to, which is written."""
        context: Any = SimpleNamespace(
            job_id=uuid.uuid4(), round=1, begun=None, should_stop=should_stop, next_keys=lambda: None
        )
        pinned = KIND.pin(RefreshParams(model=model, publish=False, **params))
        keys = list(KIND.split(pinned, context))
        result = KIND.run(pinned, keys, context)
        with connect() as connection:
            assert result.write is not None
            result.write(connection)
        return keys, result

    def vectors(self, model: str) -> dict[str, dict[int, list[float]]]:
        """By name of the picture's item, and number of the region."""
        found: dict[str, dict[int, list[float]]] = {}
        with connect() as connection:
            rows = connection.execute(
                select(ItemImage.item_id, Embedding.region, Embedding.vector)
                .join(ItemImage, ItemImage.image_id == Embedding.image_id)
                .join(ModelVersion, ModelVersion.model_version_id == Embedding.model_version_id)
                .where(ModelVersion.name == model.partition(":")[0])
                .order_by(ItemImage.item_id, Embedding.region)
            )
            for item_id, region, vector in rows:
                found.setdefault(item_id, {})[region] = np.frombuffer(vector, "<f2").tolist()
        return found

    def regions(self, item_id: str) -> list[Any]:
        """Rows of what was found in an item's pictures."""
        with connect() as connection:
            return list(
                connection.execute(
                    select(
                        PictureRegion.region, PictureRegion.label, PictureRegion.score, PictureRegion.box,
                        PictureRegion.colour,
                    )
                    .join(ItemImage, ItemImage.image_id == PictureRegion.image_id)
                    .where(ItemImage.item_id == item_id)
                    .order_by(PictureRegion.image_id, PictureRegion.region)
                )
            )  # fmt: skip
