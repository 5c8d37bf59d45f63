"""A shop of plain colours: its items, models that see colours, and photos of coloured garments."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import insert, text

from shopvision.catalogue import upsert_items
from shopvision.database import connect
from shopvision.errors import ItemError
from shopvision.fashion.detection.regions import Region, RegionRules
from shopvision.images import Decoded
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.tables import ModelRole, ModelVersion
from tests.integration.index.catalogue import embed

Colour = tuple[int, int, int]

GARMENTS: dict[str, Colour] = {"top": (220, 20, 20), "shoes": (20, 20, 220), "bag": (20, 200, 20)}


class MeanColour:
    """Encodes a picture as the direction of its mean colour; black has none."""

    preprocessing = Preprocessing(size=(8, 8), resize_mode="squash")
    dimension = 3
    batch_size = 4

    def encode(self, batch: np.ndarray) -> np.ndarray:
        colours = batch.astype(np.float32).mean(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            return colours / np.linalg.norm(colours, axis=1, keepdims=True)


class ColourFinder:
    """Finds what has exactly the colour of a garment, surest of what comes first in ``GARMENTS``."""

    labels = tuple(sorted(GARMENTS))
    target = (64, 64)
    rules = RegionRules()
    batch_size = 4

    def prepare(self, decoded: Decoded) -> Any:
        if min(decoded.size) == 3:
            raise ItemError("unfit_shape", "The picture is too narrow for this detector.")
        return np.asarray(decoded.image)

    def detect(self, pictures: Sequence[Any]) -> list[tuple[Region, ...]]:
        return [self._regions(pixels) for pixels in pictures]

    def _regions(self, pixels: np.ndarray) -> tuple[Region, ...]:
        found = []
        for place, (label, colour) in enumerate(GARMENTS.items()):
            rows, columns = np.nonzero((pixels == colour).all(axis=2))
            if len(rows):
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                found.append(Region(tuple(map(float, box)), label, 0.9 - 0.1 * place))
        return tuple(found)


def vector(colour: Colour) -> np.ndarray:
    return MeanColour().encode(np.array(colour, np.uint8).reshape(1, 1, 1, 3))[0].astype(np.float16)


def photo(garments: Mapping[str, tuple[int, int, int, int]], size: tuple[int, int] = (160, 120)) -> bytes:
    """A PNG on white; ``garments``: which, and left, top, width, height."""
    image = Image.new("RGB", size, "white")
    for label, (left, top, width, height) in garments.items():
        image.paste(GARMENTS[label], (left, top, left + width, top + height))
    return png(image)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class ShopItem:
    """An item with one picture of one colour."""

    item_id: str
    colour: Colour
    fields: Mapping[str, Any]


def fill(model: Any, items: Sequence[ShopItem], pictures: str = "file:///pictures") -> dict[str, int]:
    """Write the items with their vectors; gives the image_id of each."""
    with connect() as connection:
        upsert_items(
            connection,
            [{"item_id": one.item_id, "images": [f"{pictures}/{one.item_id}.png"], **one.fields} for one in items],
        )
        rows = connection.execute(text("SELECT item_id, image_id FROM item_images")).all()
    ids = {row.item_id: row.image_id for row in rows}
    embed(model, [ids[one.item_id] for one in items], np.stack([vector(one.colour) for one in items]))
    with connect() as connection:  # pictures of one colour have the same bytes
        connection.execute(text("UPDATE embeddings SET image_sha256 = sha256(vector)"))
    return ids


def let_serve(role: str, name: str) -> str:
    """A row of the registry in a role; gives ``name:tag``."""
    with connect() as connection:
        identity = connection.scalar(
            insert(ModelVersion)
            .values(name=name, tag="1", card={"kind": role})
            .returning(ModelVersion.model_version_id)
        )
        connection.execute(insert(ModelRole).values(role=role, model_version_id=identity))
    return f"{name}:1"
