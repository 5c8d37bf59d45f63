"""Pictures of items, read ahead of the model that looks at them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.images.preprocessing import fit
from shopvision.images.reader import PictureOutcome, PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.images.decoding import Decoded
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.items.item import Item
    from shopvision.matching.scoring.predict import BaseScorer

PICTURES_AT_ONCE = 256
TEXTS_AT_ONCE = 1_024
# A batch comes at least this often, even an empty one, so that its user can look whether to go on.
PATIENCE_SECONDS = 2.0

Picture: TypeAlias = NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]
"""Prepared for one model, or in each of the ways that several want."""
ItemPictures: TypeAlias = "dict[int, Picture | ItemError | None]"
"""Row of an item -> its prepared picture, None where it has none, or why it cannot be read."""


@dataclass(frozen=True)
class VectorBatch:
    """What a model keeps of some of many items.

    Attributes:
        done: how many items have been looked at, those of this batch included.
        rows: the places, among all items, of those that the model can read.
        vectors: (rows, d) float32; (rows, 0) of a model that keeps nothing of items.
        failed: place -> why the model cannot read the item.
        model_seconds: time spent in the model.
    """

    done: int
    rows: list[int]
    vectors: NDArray[np.float32]
    failed: dict[int, ItemError]
    model_seconds: float


def vectors_in_batches(scorer: BaseScorer, items: Sequence[Item], door: PictureDoor | None) -> Iterator[VectorBatch]:
    """What a model keeps of items, in any order; one that it cannot read, or whose picture is slow, stops no other.

    Args:
        scorer: makes the vectors.
        items: any number.
        door: that pictures come through, for a model that reads them.

    Raises:
        TransientError: a source of pictures is away.
    """
    done = 0
    for found in read_pictures(items, scorer.preprocessing, door, check=scorer.check):
        done += len(found)
        failed = {row: picture for row, picture in found.items() if isinstance(picture, ItemError)}
        pictures = {row: picture for row, picture in found.items() if not isinstance(picture, ItemError)}
        rows = list(pictures)
        started = time.perf_counter()
        vectors = np.empty((len(rows), scorer.vector_dimension or 0), np.float32)
        if rows and scorer.vector_dimension is not None:
            given = list(pictures.values()) if scorer.needs_picture else None
            vectors = scorer.item_vectors([items[row] for row in rows], given)
        yield VectorBatch(done, rows, vectors, failed, time.perf_counter() - started)


def gather_vectors(
    scorer: BaseScorer,
    items: Sequence[Item],
    door: PictureDoor | None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[NDArray[np.float32] | None, dict[int, ItemError]]:
    """What a model keeps of items, all in memory, and the items that it cannot read.

    Args:
        scorer: makes the vectors.
        items: m items.
        door: that pictures come through, for a model that reads them.
        on_progress: called with (items done, all).

    Returns:
        (m, ``vector_dimension``) float32, zero where it was not made, or None where nothing is kept of items; and place
        of an item -> why the model cannot read it.

    Raises:
        TransientError: a source of pictures is away.
    """
    vectors = np.zeros((len(items), scorer.vector_dimension or 0), np.float32)
    failed: dict[int, ItemError] = {}
    for batch in vectors_in_batches(scorer, items, door):
        vectors[batch.rows] = batch.vectors
        failed |= batch.failed
        on_progress(batch.done, len(items))
    return None if scorer.vector_dimension is None else vectors, failed


def read_pictures(
    items: Sequence[Item],
    preprocessing: Preprocessing | tuple[Preprocessing, ...] | None,
    door: PictureDoor | None,
    *,
    check: Callable[[Item], None] = lambda _: None,
) -> Iterator[ItemPictures]:
    """The pictures of items, in batches as they are ready; while one is worked on, others are read.

    Args:
        items: any number.
        preprocessing: how pictures are prepared; None reads none.
        door: that they come through.
        check: raises ``ItemError`` for an item whose picture is not worth reading.

    Yields:
        Each item once, in any order, rows ascending within a batch; the message of an error names the item.

    Raises:
        TransientError: a source of pictures is away.
    """
    settled: ItemPictures = {}
    requests = []
    for row, item in enumerate(items):
        try:
            check(item)
        except ItemError as error:
            settled[row] = error
            continue
        if preprocessing is None or door is None or not item.picture:
            settled[row] = None
        else:
            requests.append(PictureRequest(row, item.picture))
    rest = iter(settled.items())
    if preprocessing is None or door is None or not requests:
        while batch := dict(islice(rest, TEXTS_AT_ONCE)):
            yield batch
        return
    reader: PictureReader[Picture]
    if isinstance(preprocessing, tuple):
        largest = max(one.target[0] for one in preprocessing), max(one.target[1] for one in preprocessing)
        several = partial(_fit_each, preprocessings=preprocessing)
        reader = PictureReader(door, several, target=largest, ahead=2 * PICTURES_AT_ONCE)
    else:
        fitted = partial(fit, preprocessing=preprocessing)
        reader = PictureReader(door, fitted, target=preprocessing.target, ahead=2 * PICTURES_AT_ONCE)
    with reader.read(requests) as reading:
        while reading.missing:
            taken = reading.take_many(PICTURES_AT_ONCE, PATIENCE_SECONDS)
            batch = dict(islice(rest, PICTURES_AT_ONCE))
            batch |= {outcome.key: _named(items[outcome.key], outcome) for outcome in taken}
            yield dict(sorted(batch.items()))
    while batch := dict(islice(rest, TEXTS_AT_ONCE)):
        yield batch


def _fit_each(decoded: Decoded, preprocessings: tuple[Preprocessing, ...]) -> Picture:
    return tuple(fit(decoded, one) for one in preprocessings)


def _named(item: Item, outcome: PictureOutcome[Picture]) -> Picture | ItemError:
    picture = whole(outcome)
    if isinstance(picture, ItemError):
        return ItemError(picture.code, f"Item {item.item_id!r}: {picture.message}")
    return picture
