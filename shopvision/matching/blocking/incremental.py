"""Candidates of a few items, at the cost of these few: the same that a look at the whole catalogue gives.

Rows are made only for items that a source may find. Counts are of the whole catalogue and rows are in its order, so
that weights, budgets and ties are the same. Only where vectors of texts are so many that they are searched
approximately otherwise, these few are compared exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Connection

from shopvision.matching.blocking import stored_keys
from shopvision.matching.blocking.finders import WORD_BUDGET, key_finders, key_index, looks_at_pictures, shared_by
from shopvision.matching.blocking.inverted import KeyCounts
from shopvision.matching.blocking.keys import KEY_SOURCES, KeyedItems, Keys, of_source
from shopvision.matching.blocking.merging import Finder
from shopvision.matching.blocking.rows import ItemRows, root_of
from shopvision.matching.options import BlockingOptions
from shopvision.matching.stopping import ShouldStop

if TYPE_CHECKING:
    from shopvision.index.generation import Generation
    from shopvision.matching.blocking.near_items import NearItems
    from shopvision.matching.blocking.pictures import SharedPicture
    from shopvision.models import ModelVersionRef

LOOK_UP_COST = 1  # of an item that a key names, in items of a whole reading; many are named several times


def finders_around(
    connection: Connection, item_ids: list[str], options: BlockingOptions, folder: Path, *,
    generation: Generation | None, blocker: ModelVersionRef | None, should_stop: ShouldStop,
) -> tuple[ItemRows, list[Finder]] | None:  # fmt: skip
    """Rows for some items and for all that any source may find for them, and what finds them.

    Returns:
        None where so much would have to be looked up that reading everything is cheaper.
    """
    from shopvision.matching.blocking.near_items import FoundNearby, nearest_texts

    total = stored_keys.count_items(connection)
    if len(item_ids) * LOOK_UP_COST > total:
        return None
    due = stored_keys.read_some(connection, item_ids)
    wanted = _looked_up(connection, due, options, total)
    if wanted is None:
        return None
    near: list[NearItems] = []
    if blocker is not None and "text_vector" in options.sources:
        near.append(nearest_texts(connection, blocker.model_version_id, due.item_ids, options, should_stop))
    shared, pictures = _pictures_around(connection, due, options, total, generation)
    near += pictures
    others = {item_id for one in near for item_id in one.found}
    others |= {item_id for picture in shared for item_id in picture.item_ids}
    around = stored_keys.read_some(connection, [*due.item_ids, *others], wanted)
    distinct = np.unique(around.keys)
    items = stored_keys.count_keys(connection, distinct)
    counts = KeyCounts(distinct[items > 1], items[items > 1], total)
    rows, finders = key_finders([around], options, folder, counts)
    if "same_picture" in options.sources:
        from shopvision.matching.blocking.pictures import PictureKeys

        keys = PictureKeys.of(shared, rows, options.rare_value_limit, total)
        finders.append(key_index("same_picture", keys.rows, keys.keys, rows, options, counts=keys.counts))
    finders += [FoundNearby(one, rows, options.neighbours) for one in near]
    return rows, finders


def _looked_up(connection: Connection, due: KeyedItems, options: BlockingOptions, total: int) -> Keys | None:
    """The keys by which ``KeyIndex`` finds partners; None where they name too many of ``total`` items.

    Of each item and source those are taken that are rare enough, from the rarest on, within the budget.
    """
    distinct, inverse = np.unique(due.keys, return_inverse=True)
    items = stored_keys.count_keys(connection, distinct)
    of_row = np.repeat(np.arange(len(due.item_ids)), due.counts)
    taken = np.zeros(len(distinct), np.bool_)
    for source in KEY_SOURCES:
        if source not in options.sources:
            continue
        often = items[inverse]
        places = np.flatnonzero(of_source(due.keys, source) & (often > 1) & (often <= shared_by(source, options)))
        order = places[np.lexsort((due.keys[places], often[places], of_row[places]))]
        named = np.cumsum(often[order])
        starts = np.searchsorted(of_row[order], of_row[order])
        before = np.concatenate([[0], named])[starts]
        taken[inverse[order[named - before <= WORD_BUDGET]]] = True
    return distinct[taken] if items[taken].sum() * LOOK_UP_COST <= total else None


def _pictures_around(
    connection: Connection, due: KeyedItems, options: BlockingOptions, total: int, generation: Generation | None
) -> tuple[list[SharedPicture], list[NearItems]]:
    """Pictures that due items, or those that share one with them, share with others; and items that look alike."""
    if not looks_at_pictures(options):
        return [], []
    from shopvision.matching.blocking.pictures import CataloguePictures, shared_pictures

    limit = options.rare_value_limit
    shared = list(shared_pictures(connection, limit, due.item_ids))
    near = []
    if generation is not None:
        common = [picture.sha256 for picture in shared if picture.items > limit]
        roots = [root_of(category, options.within) for category in due.categories]
        near.append(CataloguePictures(generation, options, items=total, common=common).near(due.item_ids, roots))
    if "same_picture" not in options.sources:
        return [], near
    # How much a shared picture says of an item depends on the others that it shares.
    partners = {item_id for picture in shared if picture.items <= limit for item_id in picture.item_ids}
    everything = shared_pictures(connection, limit, sorted({*due.item_ids, *partners}))
    return [picture for picture in everything if picture.items <= limit], near
