"""Vectors of catalogue items under one model version: kept where the item is unchanged, made anew where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from shopvision.images import PictureDoor
from shopvision.matching import store
from shopvision.matching.scoring.item_pictures import VectorBatch, vectors_in_batches
from shopvision.matching.store import CatalogueItems
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shopvision.matching.scoring.predict import BaseScorer


@dataclass
class ItemVectors:
    """What became of some items; ``write`` stores the vectors that were made.

    Attributes:
        vectors: by item, little-endian float16; kept ones and those that were made.
        made: of these, the items whose vectors were made.
        failed: item -> (code, message) of those that can have none.
        remaining: items not looked at because it was asked to stop.
    """

    model_version_id: int
    read: CatalogueItems
    vectors: dict[str, bytes] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    remaining: list[str] = field(default_factory=list)
    model_seconds: float = 0.0

    def write(self, connection: Connection, *, confirm: bool = False) -> None:
        """Store what was made.

        Args:
            confirm: note that kept vectors are those of what the items are now, so that nobody looks at them again.
        """
        made = {item_id: self.vectors[item_id] for item_id in self.made}
        store.write_vectors(connection, self.model_version_id, self.read, made)
        if confirm:
            store.confirm_vectors(connection, self.model_version_id, self.read, sorted(self.vectors.keys() - made))


def item_vectors(
    scorer: BaseScorer,
    model_version_id: int,
    read: CatalogueItems,
    item_ids: Iterable[str],
    *,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> ItemVectors:
    """The vectors of ``item_ids``, which are among those read. No database connection is held while a model computes.

    Args:
        since: vectors made before are not kept, even where the item is unchanged.
        should_stop: asked after every batch.
    """
    wanted = list(dict.fromkeys(item_ids))
    result = ItemVectors(model_version_id, read)
    kept = store.kept_vectors(model_version_id, wanted, since)
    result.vectors = {
        item_id: kept[item_id].vector
        for item_id in wanted
        if item_id in kept and kept[item_id].input_hash == read.hashes[item_id]
    }
    missing = [item_id for item_id in wanted if item_id not in result.vectors]
    items = [read.items[item_id] for item_id in missing]
    with PictureDoor(get_settings()) as door:
        for batch in vectors_in_batches(scorer, items, door):
            _take(result, missing, batch)
            if batch.done < len(missing) and should_stop():
                looked_at = result.vectors.keys() | result.failed.keys()
                result.remaining = [item_id for item_id in missing if item_id not in looked_at]
                break
    return result


def _take(result: ItemVectors, item_ids: list[str], batch: VectorBatch) -> None:
    result.model_seconds += batch.model_seconds
    for row, error in batch.failed.items():
        result.failed[item_ids[row]] = (error.code, error.message)
    vectors = batch.vectors.astype("<f2")
    for row, vector, finite in zip(batch.rows, vectors, np.isfinite(vectors).all(axis=1), strict=True):
        item_id = item_ids[row]
        if finite:
            result.vectors[item_id] = vector.tobytes()
            result.made.append(item_id)
        else:
            result.failed[item_id] = ("bad_vector", f"The model gives item {item_id!r} no finite vector.")
