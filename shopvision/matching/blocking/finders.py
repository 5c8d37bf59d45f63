"""What looks for candidates: a finder for each source that is wanted, over rows that stand for items."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Connection

from shopvision.matching.blocking import stored_keys
from shopvision.matching.blocking.inverted import KeyCounts, KeyIndex, KeySpool
from shopvision.matching.blocking.keys import KEY_SOURCES, KeyedItems, Keys
from shopvision.matching.blocking.merging import Finder
from shopvision.matching.blocking.rows import ItemRows, Rows
from shopvision.matching.options import BlockingOptions, Source
from shopvision.matching.stopping import ShouldStop, until_stopped

if TYPE_CHECKING:
    from shopvision.index.generation import Generation
    from shopvision.models import ModelVersionRef

PICTURES_AT_ONCE = 1_000
WORD_BUDGET = 4_000  # items that the rarest keys of one item may name


def key_finders(
    batches: Iterable[KeyedItems], options: BlockingOptions, folder: Path, counts: KeyCounts | None = None
) -> tuple[ItemRows, list[Finder]]:
    """Every item becomes a row; one inverted index for each kind of key that is wanted.

    Args:
        batches: items, each once.
        options: which kinds.
        folder: for files.
        counts: of all items, where ``batches`` are not all of them.
    """
    rows = ItemRows(options.within)
    with ExitStack() as files:
        wanted = [source for source in KEY_SOURCES if source in options.sources]
        spools = {source: files.enter_context(KeySpool(folder, source)) for source in wanted}
        for batch in batches:
            numbers = np.arange(len(rows), len(rows) + len(batch.item_ids), dtype=np.int32)
            for item_id, category in zip(batch.item_ids, batch.categories, strict=True):
                rows.add(item_id, category)
            for spool in spools.values():
                spool.add(np.repeat(numbers, batch.counts), batch.keys)
    finders: list[Finder] = []
    for source, spool in spools.items():
        of_row, keys = spool.close()
        mine = KeyCounts.of(keys, len(rows)) if counts is None else counts.of_source(source)
        finders.append(key_index(source, of_row, keys, rows, options, counts=mine))
    return rows, finders


def key_index(
    source: Source, of_row: Rows, keys: Keys, rows: ItemRows, options: BlockingOptions, *, counts: KeyCounts
) -> KeyIndex:
    """Words have to be alike as a whole; of codes, values and pictures one that is shared is evidence enough."""
    is_words = source == "words"
    return KeyIndex(
        source, of_row, keys, counts, rows.categories(), shared_by=shared_by(source, options), budget=WORD_BUDGET,
        limit=options.neighbours if is_words else options.max_per_item,
        min_similarity=options.min_similarity if is_words else 0,
    )  # fmt: skip


def catalogue_finders(
    connection: Connection, options: BlockingOptions, folder: Path, *, generation: Generation | None,
    blocker: ModelVersionRef | None, should_stop: ShouldStop,
) -> tuple[ItemRows, list[Finder]]:  # fmt: skip
    """Over all items of the catalogue; see ``candidates.candidate_pairs``."""
    from shopvision.matching.blocking.pictures import (
        CataloguePictures,
        PictureFinder,
        PictureKeys,
        shared_pictures,
    )
    from shopvision.matching.blocking.vectors import VectorIndex, read_text_vectors

    rows, finders = key_finders(until_stopped(stored_keys.read_all(connection), should_stop), options, folder)
    if blocker is not None and "text_vector" in options.sources:
        vectors, owners = read_text_vectors(connection, blocker.model_version_id, rows, folder, should_stop)
        texts = VectorIndex("text_vector", vectors, owners, options, rows.categories(), should_stop=should_stop)
        finders.append(texts)
    if looks_at_pictures(options):
        limit = options.rare_value_limit
        pictures_of_several = until_stopped(shared_pictures(connection, limit), should_stop, every=PICTURES_AT_ONCE)
        shared = PictureKeys.of(pictures_of_several, rows, limit, len(rows))
        if "same_picture" in options.sources:
            finders.append(key_index("same_picture", shared.rows, shared.keys, rows, options, counts=shared.counts))
        if generation is not None:
            none = bool((rows.categories().roots < 0).any())
            pictures = CataloguePictures(
                generation, options, items=len(rows), common=shared.common, some_have_none=none
            )
            finders.append(PictureFinder(pictures, rows, options))
    return rows, finders


def shared_by(source: Source, options: BlockingOptions) -> int:
    """How many items may share a key that is looked up."""
    return WORD_BUDGET if source == "words" else options.rare_value_limit


def looks_at_pictures(options: BlockingOptions) -> bool:
    """Whether a source needs pictures."""
    return bool({"picture", "same_picture"} & set(options.sources))
