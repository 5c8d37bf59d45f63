"""Candidate pairs: of all pairs of a catalogue, those few worth the look of a model. Never are all pairs formed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from shopvision.catalogue.tables import Item as ItemTable
from shopvision.database import snapshot
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.matching.blocking.inverted import KeyIndex, Keys, KeySpool
from shopvision.matching.blocking.keys import attribute_keys, code_keys, title_keys
from shopvision.matching.blocking.merging import CandidatePair, Finder, stream_pairs
from shopvision.matching.blocking.rows import ItemRows, Rows
from shopvision.matching.options import BlockingOptions, Source

if TYPE_CHECKING:
    from shopvision.index.reader import IndexReader
    from shopvision.models import ModelVersionRef

READ_ITEMS = 2_000
WORD_BUDGET = 4_000  # items that the rarest words of one item may name

_KEYS: dict[Source, Callable[[Item], Collection[str]]] = {
    "code": code_keys,
    "attribute": attribute_keys,
    "words": title_keys,
}


def candidate_pairs(
    item_ids: Iterable[str] | None, options: BlockingOptions, *,
    index_reader: IndexReader | None = None, blocker: ModelVersionRef | None = None,
) -> Iterator[list[CandidatePair]]:  # fmt: skip
    """Pairs of catalogue items that may be the same product, in batches.

    Each pair is given once: of two due items by the one that comes first in the catalogue's order if that one found the
    other, else by the other one; with the sources as that item saw them.

    The catalogue is read once, as of one moment, and no transaction stays open while pairs are given. Memory grows with
    the items, by some 600 bytes for each and what ``VectorIndex`` needs, never with the pairs. Files in the temporary
    folder take some 200 bytes and the text vector of each item, and ``4 * max_per_item`` bytes for each due item.

    Args:
        item_ids: the due items, whose partners are looked up among all others; ``None`` for all items. Ids that are not
            in the catalogue are passed over.
        index_reader: of the catalogue's picture index; without one, pictures count by their bytes alone.
        blocker: the model version whose item vectors say which texts are near; without one, none do.

    Raises:
        UserError: the index was never published, or is of a model the database does not know.
        JobError: vectors of one model version differ in length, or do not fit in memory.
    """
    with tempfile.TemporaryDirectory(prefix="shopvision-blocking-") as name:
        rows, finders = _catalogue_finders(options, Path(name), index_reader, blocker)
        yield from stream_pairs(rows, rows.all_of(item_ids), finders, options, Path(name))


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
        rows, finders = _key_finders(items, options, Path(name))
        given: dict[Source, tuple[Sequence[int], NDArray[np.float32]]] = {}
        if text_vectors is not None and "text_vector" in options.sources:
            given["text_vector"] = range(len(text_vectors)), text_vectors
        if pictures is not None and _looks_at_pictures(options):
            given["picture"] = pictures
        for source, (owners, vectors) in given.items():
            units, places = unit_vectors(vectors)
            owned = np.asarray(owners, np.int32)[places]
            finders.append(VectorIndex(source, units, owned, options, rows.categories()))
        yield from stream_pairs(rows, rows.all_of(due), finders, options, Path(name))


def _catalogue_finders(
    options: BlockingOptions, folder: Path, index_reader: IndexReader | None, blocker: ModelVersionRef | None
) -> tuple[ItemRows, list[Finder]]:
    from shopvision.matching.blocking.pictures import CataloguePictures, shared_pictures
    from shopvision.matching.blocking.vectors import VectorIndex, read_text_vectors

    shared, generation = None, None
    if index_reader is not None and _looks_at_pictures(options):
        generation = index_reader.generation()
    with snapshot() as connection:
        rows, finders = _key_finders(_catalogue(connection), options, folder)
        if _looks_at_pictures(options):
            shared = shared_pictures(connection, rows, options.rare_value_limit)
        if blocker is not None and "text_vector" in options.sources:
            vectors, owners = read_text_vectors(connection, blocker.model_version_id, rows, folder)
            finders.append(VectorIndex("text_vector", vectors, owners, options, rows.categories()))
    if shared is not None:
        if "same_picture" in options.sources:
            finders.append(_rare("same_picture", shared.rows, shared.groups, rows, options))
        if generation is not None:
            finders.append(CataloguePictures(generation, rows, options, shared.common))
    return rows, finders


def _catalogue(connection: Connection) -> Iterator[Item]:
    query = select(ItemTable.item_id).order_by(ItemTable.item_id).execution_options(yield_per=READ_ITEMS)
    for item_ids in connection.scalars(query).partitions():
        yield from items_from_catalogue(connection, item_ids).values()


def _key_finders(items: Iterable[Item], options: BlockingOptions, folder: Path) -> tuple[ItemRows, list[Finder]]:
    """Every item becomes a row; one inverted index for each kind of key that is wanted."""
    rows = ItemRows(options.within)
    spools = {source: KeySpool(folder, source) for source in _KEYS if source in options.sources}
    for row, item in enumerate(items):
        rows.add(item.item_id, item.category_path or item.category)
        for source, spool in spools.items():
            spool.add(row, _KEYS[source](item))
    finders: list[Finder] = []
    for source, spool in spools.items():
        of_row, keys = spool.close()
        if source == "words":
            finders.append(
                KeyIndex(
                    source, of_row, keys, rows.categories(), shared_by=WORD_BUDGET, budget=WORD_BUDGET,
                    limit=options.neighbours, min_similarity=options.min_similarity,
                )
            )  # fmt: skip
        else:
            finders.append(_rare(source, of_row, keys, rows, options))
    return rows, finders


def _rare(source: Source, of_row: Rows, keys: Keys, rows: ItemRows, options: BlockingOptions) -> KeyIndex:
    """Keys of which one that is shared is evidence enough."""
    return KeyIndex(
        source, of_row, keys, rows.categories(), shared_by=options.rare_value_limit, budget=WORD_BUDGET,
        limit=options.max_per_item, min_similarity=0,
    )  # fmt: skip


def _looks_at_pictures(options: BlockingOptions) -> bool:
    return bool({"picture", "same_picture"} & set(options.sources))
