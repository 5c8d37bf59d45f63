"""The catalogue's entities as a model version sees them, in Postgres: computed once, read by every worker.

``refresh_entity_vectors`` goes through the whole catalogue, once a night; ``CatalogueEntities`` reads what a chunk of
items needs, and computes what came since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import numpy as np
from sqlalchemy import ARRAY, BigInteger, Connection, Text, bindparam, column, func, select

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect, copy_upsert
from shopvision.database.named_lock import try_lock
from shopvision.index.tables import Embedding
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.selection.click.bank import mean_picture
from shopvision.selection.click.context import Entity, Vector
from shopvision.selection.click.entities import PICTURES_EACH, EntityKey, entities_of
from shopvision.selection.click.tables import EntityVector

ITEMS_AT_ONCE = 5_000
ENTITIES_AT_ONCE = 500
WHOLE = 0  # the region that is the whole picture

EncodeTexts = Callable[[Sequence[str]], Vector]

_COLUMNS = (
    ("model_version_id", "int8"), ("kind", "text"), ("name", "text"), ("frequency", "int8"), ("pictures", "int4"),
    ("picture_vector", "bytea"), ("name_vector", "bytea"), ("computed_at", "timestamptz"),
)  # fmt: skip
_KEY = ("model_version_id", "kind", "name")


class Known(NamedTuple):
    """A row of ``entity_vectors``."""

    frequency: int
    pictures: int
    picture_vector: bytes
    name_vector: bytes


class CatalogueEntities:
    """Entities of the catalogue's items with their vectors; what was read once stays in memory while it lives."""

    def __init__(self, model_version_id: int, dimension: int, encode_texts: EncodeTexts) -> None:
        """Read what ``refresh_entity_vectors`` keeps.

        Args:
            model_version_id: whose vectors, see ``ImageRanker.vectors_of``.
            dimension: of them.
            encode_texts: of the same model, for names that came since.
        """
        self._version, self._dimension, self._encode_texts = model_version_id, dimension, encode_texts
        self._known: dict[EntityKey, Known] = {}

    def of(self, connection: Connection, items: Sequence[Item]) -> list[list[Entity]]:
        """The entities of each item, those of most items first; of as many, in the item's own order.

        An entity that no refresh has seen yet is known by its name alone, which is kept for others.
        """
        keys = [entities_of(item) for item in items]
        wanted = list(dict.fromkeys(key for of_item in keys for key in of_item if key not in self._known))
        self._known |= read_entities(connection, self._version, wanted)
        new = [key for key in wanted if key not in self._known]
        if new:
            nothing = np.zeros(self._dimension, "<f2").tobytes()
            names = self._encode_texts([key.name for key in new])
            found = {
                key: Known(0, 0, nothing, name.astype("<f2").tobytes()) for key, name in zip(new, names, strict=True)
            }
            write_entities(connection, self._version, found)
            self._known |= found
        return [
            [self._entity(key) for key in sorted(of_item, key=lambda key: -self._known[key].frequency)]
            for of_item in keys
        ]

    def _entity(self, key: EntityKey) -> Entity:
        known = self._known[key]
        pictures, name = (
            np.frombuffer(vector, "<f2").astype(np.float32) for vector in (known.picture_vector, known.name_vector)
        )
        return Entity(key.name, key.name, key.kind, pictures, name)


def refresh_entity_vectors(
    model_version_id: int,
    dimension: int,
    encode_texts: EncodeTexts,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Bring the entities of the whole catalogue up to date. Of one model version one process does it at a time.

    Names that are known keep their vectors. An entity's mean is over the leading pictures of its first items, as far
    as ``embeddings`` has them: a refresh of the model's embeddings goes before.

    Args:
        model_version_id: whose vectors.
        dimension: of them.
        encode_texts: of the same model.
        should_stop: asked between batches; what is done by then stays done.

    Returns:
        ``entities`` there are, and how many were ``written`` because they are new or changed; both 0 where another
        process is at it.
    """
    counts = {"entities": 0, "written": 0}
    with connect() as lock:
        if not try_lock(lock, f"entity vectors {model_version_id}"):
            return counts
        frequency, pictures = _catalogue_entities(should_stop)
        keys = iter(frequency)
        while (chunk := list(islice(keys, ENTITIES_AT_ONCE))) and not should_stop():
            with connect() as connection:
                known = read_entities(connection, model_version_id, chunk)
                vectors = _picture_vectors(connection, model_version_id, [pictures[key] for key in chunk])
                new = [key for key in chunk if key not in known]
                names = dict(zip(new, encode_texts([key.name for key in new]), strict=True)) if new else {}
                now = {}
                for key in chunk:
                    seen = [vectors[image] for image in pictures[key] if image in vectors]
                    name = known[key].name_vector if key in known else names[key].astype("<f2").tobytes()
                    mean = mean_picture(seen, dimension).astype("<f2").tobytes()
                    now[key] = Known(frequency[key], len(seen), mean, name)
                changed = {key: row for key, row in now.items() if known.get(key) != row}
                counts["written"] += write_entities(connection, model_version_id, changed)
            counts["entities"] += len(chunk)
    return counts


def read_entities(connection: Connection, model_version_id: int, keys: Sequence[EntityKey]) -> dict[EntityKey, Known]:
    """What is stored of these entities."""
    if not keys:
        return {}
    wanted = (
        func.unnest(
            bindparam("kinds", [key.kind for key in keys], ARRAY(Text)),
            bindparam("names", [key.name for key in keys], ARRAY(Text)),
        )
        .table_valued(column("kind", Text), column("name", Text), name="wanted")
        .render_derived()
    )
    row = EntityVector
    rows = connection.execute(
        select(row.kind, row.name, row.frequency, row.pictures, row.picture_vector, row.name_vector).where(
            row.model_version_id == model_version_id, row.kind == wanted.c.kind, row.name == wanted.c.name
        )
    )
    return {EntityKey(one.kind, one.name): Known(*one[2:]) for one in rows}


def write_entities(connection: Connection, model_version_id: int, entities: Mapping[EntityKey, Known]) -> int:
    """Upsert rows, in the order of their keys, so that two writers do not wait for each other; returns how many."""
    if not entities:
        return 0
    now = datetime.now(UTC)
    rows = ((model_version_id, *key, *entities[key], now) for key in sorted(entities))
    return copy_upsert(connection, EntityVector.__table__, _COLUMNS, rows, key=_KEY)  # type: ignore[arg-type] # declared as FromClause


def _catalogue_entities(
    should_stop: Callable[[], bool],
) -> tuple[dict[EntityKey, int], dict[EntityKey, list[int]]]:
    """Entity -> how many items it has, and the leading pictures of the first of them."""
    frequency: dict[EntityKey, int] = {}
    pictures: dict[EntityKey, list[int]] = {}
    for items, leading in _catalogue():
        for item_id, item in items.items():
            for key in entities_of(item):
                frequency[key] = frequency.get(key, 0) + 1
                of_entity = pictures.setdefault(key, [])
                if item_id in leading and len(of_entity) < PICTURES_EACH:
                    of_entity.append(leading[item_id])
        if should_stop():
            break
    return frequency, pictures


def _catalogue() -> Iterator[tuple[dict[str, Item], dict[str, int]]]:
    """The items by id, a few thousand at a time, and the ids of their leading pictures."""
    last = ""
    while True:
        with connect() as connection:
            ids = connection.scalars(
                select(ItemRow.item_id).where(ItemRow.item_id > last).order_by(ItemRow.item_id).limit(ITEMS_AT_ONCE)
            ).all()
            if not ids:
                return
            leading = connection.execute(
                select(ItemImage.item_id, ItemImage.image_id).where(
                    ItemImage.position == 0, ItemImage.item_id == func.any(bindparam("ids", list(ids), ARRAY(Text)))
                )
            )
            yield items_from_catalogue(connection, ids), {row.item_id: row.image_id for row in leading}
        last = ids[-1]


def _picture_vectors(
    connection: Connection, model_version_id: int, pictures: Sequence[Sequence[int]]
) -> dict[int, Vector]:
    """Stored vectors of the pictures that have one."""
    wanted = sorted({image for of_entity in pictures for image in of_entity})
    rows = connection.execute(
        select(Embedding.image_id, Embedding.vector).where(
            Embedding.model_version_id == model_version_id,
            Embedding.region == WHOLE,
            Embedding.image_id == func.any(bindparam("ids", wanted, ARRAY(BigInteger))),
        )
    )
    return {image_id: np.frombuffer(vector, "<f2").astype(np.float32) for image_id, vector in rows}
