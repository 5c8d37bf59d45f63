"""The items that a model learns from before pairs: what the section ``[pretraining]`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.database import snapshot
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item_files import read_items
from shopvision.matching.item_regions import with_regions

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.fitting.config import MatcherConfig


def pretraining_items(config: MatcherConfig, splits: Mapping[str, PairTable]) -> list[Item]:
    """Items without labels, by ``PretrainingConfig.items``; none where the section is left out.

    Args:
        config: of the run.
        splits: pairs to train and validate on.

    Raises:
        UserError: a file cannot be read, or there is no catalogue.
    """
    section, data = config.pretraining, config.data
    if section is None:
        return []
    file = section.items or data.items
    if file is not None:
        return list(read_items(file, images=data.images).values())
    if data.catalogue:
        with snapshot() as connection:
            ids = connection.scalars(select(ItemRow.item_id).order_by(ItemRow.item_id)).all()
            return list(with_regions(connection, items_from_catalogue(connection, ids)).values())
    return [item for split in ("train", "valid") for item in splits[split].used_items()]
