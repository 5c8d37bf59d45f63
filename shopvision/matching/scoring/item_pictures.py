"""Pictures of items through the picture door, decoded in threads ahead of the model that reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.images.preprocessing import prepare

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.items.item import Item
    from shopvision.matching.scoring.predict import BaseScorer

THREADS = 8  # most of them wait for a remote source most of the time
PICTURES_AT_ONCE = 256
TEXTS_AT_ONCE = 1_024

Picture: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class VectorBatch:
    """What a model keeps of some of many items.

    Attributes:
        end: how many items have been looked at, those of this batch included.
        rows: the places, among all items, of those that the model can read.
        vectors: (rows, d) float32; (rows, 0) of a model that keeps nothing of items.
        failed: place -> why the model cannot read the item.
        model_seconds: time spent in the model.
    """

    end: int
    rows: list[int]
    vectors: NDArray[np.float32]
    failed: dict[int, ItemError]
    model_seconds: float


def vectors_in_batches(scorer: BaseScorer, items: Sequence[Item], door: PictureDoor | None) -> Iterator[VectorBatch]:
    """What a model keeps of items; an item that it cannot read stops no other.

    Args:
        scorer: makes the vectors.
        items: any number.
        door: that pictures come through, for a model that reads them.

    Raises:
        TransientError: a source of pictures is away.
    """
    for place, found in read_pictures(items, scorer.preprocessing, door, check=scorer.check):
        failed: dict[int, ItemError] = {}
        rows: list[int] = []
        pictures: list[Picture | None] = []
        for row, picture in enumerate(found, place.start):
            if isinstance(picture, ItemError):
                failed[row] = picture
            else:
                rows.append(row)
                pictures.append(picture)
        started = time.perf_counter()
        vectors = np.empty((len(rows), scorer.vector_dimension or 0), np.float32)
        if rows and scorer.vector_dimension is not None:
            vectors = scorer.item_vectors([items[row] for row in rows], pictures if scorer.needs_picture else None)
        yield VectorBatch(place.stop, rows, vectors, failed, time.perf_counter() - started)


def read_pictures(
    items: Sequence[Item],
    preprocessing: Preprocessing | None,
    door: PictureDoor | None,
    *,
    check: Callable[[Item], None] = lambda _: None,
) -> Iterator[tuple[slice, list[Picture | ItemError | None]]]:
    """The pictures of items, in batches; while one batch is worked on, the next is fetched and decoded.

    Args:
        items: any number.
        preprocessing: how pictures are prepared; None reads none.
        door: that they come through.
        check: raises ``ItemError`` for an item whose picture is not worth reading.

    Yields:
        The batch's place among ``items``, and for each item its prepared picture, None where it has none, or why it
        cannot be read; the message names the item.

    Raises:
        TransientError: a source of pictures is away.
    """

    def read(item: Item) -> Picture | ItemError | None:
        try:
            check(item)
        except ItemError as error:
            return error
        if preprocessing is None or door is None or not item.picture:
            return None
        try:
            return prepare(door.fetch(item.picture).data, preprocessing, door.limits)
        except ItemError as error:
            return ItemError(error.code, f"Item {item.item_id!r}: {error.message}")
        except MemoryError:
            return ItemError("out_of_memory", f"Item {item.item_id!r}: not enough memory to decode {item.picture}.")

    size = TEXTS_AT_ONCE if preprocessing is None else PICTURES_AT_ONCE
    places = [slice(start, min(start + size, len(items))) for start in range(0, len(items), size)]
    with ThreadPoolExecutor(THREADS, "pictures") as threads:
        try:
            ahead = threads.map(read, items[places[0]]) if places else iter(())
            for number, place in enumerate(places):
                pictures = list(ahead)
                if number + 1 < len(places):
                    ahead = threads.map(read, items[places[number + 1]])
                yield place, pictures
        finally:
            # Whoever stops here does not wait for what only the next batch would have needed.
            threads.shutdown(wait=False, cancel_futures=True)
