"""Candidate pairs: of all pairs of a catalogue, those few worth the look of a model. Never are all pairs formed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shopvision.database import snapshot
from shopvision.items.item import Item
from shopvision.matching.blocking import stored_keys
from shopvision.matching.blocking.finders import catalogue_finders, key_finders, looks_at_pictures
from shopvision.matching.blocking.incremental import finders_around
from shopvision.matching.blocking.keys import keyed_items
from shopvision.matching.blocking.merging import CandidatePair, Finder, stream_pairs
from shopvision.matching.blocking.rows import ItemRows
from shopvision.matching.options import BlockingOptions, Source
from shopvision.matching.stopping import ShouldStop, never

if TYPE_CHECKING:
    from shopvision.index.generation import Generation
    from shopvision.index.reader import IndexReader
    from shopvision.models import ModelVersionRef

FEW_ITEMS = 5_000  # due items that may be looked up one by one


def candidate_pairs(
    item_ids: Iterable[str] | None, options: BlockingOptions, *,
    index_reader: IndexReader | None = None, blocker: ModelVersionRef | None = None, should_stop: ShouldStop = never,
) -> Iterator[list[CandidatePair]]:  # fmt: skip
    """Pairs of catalogue items that may be the same product, in batches.

    Each pair is given once: of two due items by the one that comes first in the catalogue's order if that one found the
    other, else by the other one; with the sources as that item saw them.

    Keys are brought up to date with what changed in the catalogue first. Then it is read as of one moment: around the
    due items where they are few, as a whole otherwise. No transaction stays open while pairs are given. Memory grows
    with the items read, by some 600 bytes for each and what ``VectorIndex`` needs, never with the pairs. Files in the
    temporary folder take some 200 bytes and the text vector of each item, and ``4 * max_per_item`` bytes for each due
    item.

    Args:
        item_ids: the due items, whose partners are looked up among all others; ``None`` for all items. Ids that are not
            in the catalogue are passed over.
        index_reader: of the catalogue's picture index; without one, pictures count by their bytes alone.
        blocker: the model version whose item vectors say which texts are near; without one, none do.
        should_stop: asked between batches of items.

    Raises:
        StopAskedError: the answer was yes.
        UserError: the index was never published, or is of a model the database does not know.
        JobError: vectors of one model version differ in length, or do not fit in memory.
    """
    with tempfile.TemporaryDirectory(prefix="shopvision-blocking-") as name:
        stored_keys.bring_up_to_date(should_stop)
        generation = index_reader.generation() if index_reader is not None and looks_at_pictures(options) else None
        due = iter(()) if item_ids is None else iter(item_ids)
        first = None if item_ids is None else list(islice(due, FEW_ITEMS + 1))
        rows, finders = _finders(
            first, options, Path(name), generation=generation, blocker=blocker, should_stop=should_stop
        )
        wanted = None if first is None else chain(first, due)
        yield from stream_pairs(rows, rows.all_of(wanted), finders, options, Path(name), should_stop=should_stop)


def pairs_of_items(
    items: Iterable[Item], options: BlockingOptions, *, due: Iterable[str] | None = None,
    text_vectors: NDArray[np.float32] | None = None, pictures: tuple[Sequence[int], NDArray[np.float32]] | None = None,
) -> Iterator[list[CandidatePair]]:  # fmt: skip
    """The same for ``items`` without a database, by the sources that are given.

    Args:
        due: ids whose partners are looked up; all by default.
        text_vectors: one for each item, shape (items, d); zeros where an item has none.
        pictures: for each picture the number of its item, and its vector, shape (pictures, d).

    Raises:
        UserError: an id is given twice.
    """
    from shopvision.matching.blocking.vectors import VectorIndex, unit_vectors

    with tempfile.TemporaryDirectory(prefix="shopvision-blocking-") as name:
        rows, finders = key_finders(keyed_items(items), options, Path(name))
        given: dict[Source, tuple[Sequence[int], NDArray[np.float32]]] = {}
        if text_vectors is not None and "text_vector" in options.sources:
            given["text_vector"] = range(len(text_vectors)), text_vectors
        if pictures is not None and looks_at_pictures(options):
            given["picture"] = pictures
        for source, (owners, vectors) in given.items():
            units, places = unit_vectors(vectors)
            owned = np.asarray(owners, np.int32)[places]
            finders.append(VectorIndex(source, units, owned, options, rows.categories()))
        yield from stream_pairs(rows, rows.all_of(due), finders, options, Path(name))


def _finders(
    due: list[str] | None, options: BlockingOptions, folder: Path, *, generation: Generation | None,
    blocker: ModelVersionRef | None, should_stop: ShouldStop,
) -> tuple[ItemRows, list[Finder]]:  # fmt: skip
    """Over what a few due items may find, or over the whole catalogue."""
    with snapshot() as connection:
        if due is not None and len(due) <= FEW_ITEMS:
            found = finders_around(
                connection, due, options, folder, generation=generation, blocker=blocker, should_stop=should_stop
            )
            if found is not None:
                return found
        return catalogue_finders(
            connection, options, folder, generation=generation, blocker=blocker, should_stop=should_stop
        )
