"""Vectors of catalogue items under one model version: kept where the item is unchanged, made anew where it is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import ItemError
from shopvision.images import PictureDoor
from shopvision.images.preprocessing import prepare
from shopvision.matching import store
from shopvision.matching.store import CatalogueItems
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from shopvision.matching.predict import BaseScorer
    from shopvision.matching.records import Item

BATCH_ITEMS = 256
THREADS = 8  # that fetch and decode pictures; most of them wait for a remote source most of the time


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
    with PictureDoor(get_settings()) as door, ThreadPoolExecutor(THREADS, "pictures") as threads:
        for start in range(0, len(missing), BATCH_ITEMS):
            if start and should_stop():
                result.remaining = missing[start:]
                break
            _make(
                [read.items[item_id] for item_id in missing[start : start + BATCH_ITEMS]], scorer, door, threads, result
            )
    return result


def _make(
    items: Sequence[Item], scorer: BaseScorer, door: PictureDoor, threads: ThreadPoolExecutor, result: ItemVectors
) -> None:
    pictures: list[NDArray[np.uint8] | None] = []
    ready: list[Item] = []
    looks = threads.map(lambda item: _look(item, door, scorer), items)
    for item, found in zip(items, looks, strict=True):
        if isinstance(found, ItemError):
            result.failed[item.item_id] = (found.code, found.message)
        else:
            ready.append(item)
            pictures.append(found)
    if not ready:
        return
    started = time.perf_counter()
    vectors = scorer.item_vectors(ready, pictures if scorer.needs_picture else None).astype("<f2")
    result.model_seconds += time.perf_counter() - started
    for item, vector, finite in zip(ready, vectors, np.isfinite(vectors).all(axis=1), strict=True):
        if finite:
            result.vectors[item.item_id] = vector.tobytes()
            result.made.append(item.item_id)
        else:
            result.failed[item.item_id] = ("bad_vector", f"The model gives item {item.item_id!r} no finite vector.")


def _look(item: Item, door: PictureDoor, scorer: BaseScorer) -> NDArray[np.uint8] | ItemError | None:
    """The item's picture, where the model reads pictures and there is one; or why it can have no vector."""
    try:
        scorer.check(item)
    except ItemError as error:
        return error
    if scorer.preprocessing is None or not item.picture:
        return None
    try:
        return prepare(door.fetch(item.picture).data, scorer.preprocessing, door.limits)
    except ItemError as error:
        return ItemError(error.code, f"Item {item.item_id!r}: {error.message}")
    except MemoryError:
        return ItemError("out_of_memory", f"{item.picture}: not enough memory to decode the picture.")
