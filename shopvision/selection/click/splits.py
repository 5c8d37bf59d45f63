"""The pairs that a configuration names: for training, validation and test, no item in two of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from shopvision.errors import ItemError, UserError
from shopvision.items.item_files import read_items
from shopvision.selection.click.config import DataConfig
from shopvision.selection.click.data import ClickData, pictures_on_both_sides, split_by_item
from shopvision.selection.click.entities import EntityTable, entities_of_items, read_entities
from shopvision.selection.click.sources import ClickSource, read_clicks


@dataclass(frozen=True)
class ClickSplits:
    """The pairs of a configuration, and what is known of their items' entities."""

    train: ClickData
    valid: ClickData | None
    test: ClickData | None
    table: EntityTable

    @property
    def by_name(self) -> dict[str, ClickData]:
        """Those that there are."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: data for name, data in named.items() if data is not None}

    @property
    def failures(self) -> list[ItemError]:
        """Broken records of all files, each once: parts of one file have the same ones."""
        return list({error.message: error for data in self.by_name.values() for error in data.failures}.values())

    def notes(self) -> list[str]:
        """What whoever reads the numbers should know of the data."""
        notes = []
        if self.failures:
            notes.append(f"{len(self.failures):,} broken records were left out.")
        if self.train.left_out:
            reasons = ", ".join(f"{count:,} for {reason}" for reason, count in self.train.left_out.items())
            notes.append(f"Pairs of the file that say nothing: {reasons}.")
        if self.valid is not None and (shared := pictures_on_both_sides(self.train, self.valid)):
            notes.append(f"{shared:,} pictures are of items of training and of validation, too.")
        return notes


def read_splits(source: DataConfig) -> ClickSplits:
    """The pairs for training, validation and test: no item is in two of them.

    Raises:
        UserError: the data cannot be used.
    """
    items = None if source.items is None else read_items(source.items, images=source.images)
    read = partial(
        ClickSource, kind=source.kind, images=source.images, items=items, columns=source.columns,
        min_impressions=source.min_impressions, max_p_value=source.max_p_value,
    )  # fmt: skip
    table = EntityTable() if items is None else entities_of_items(items.values())
    if source.entities is not None:
        table = table.merged(read_entities(source.entities, images=source.entity_images))
    data = read_clicks(read(source.clicks))
    train, valid, test = source.fractions
    if source.valid is not None:
        parts = _split(data, {"train": train + valid, "test": test}, source.split_seed)
        seen = {parts["train"].items[row].item_id for row in parts["train"].used_items().tolist()}
        parts["valid"] = _without_items(read_clicks(read(source.valid)), seen)
    else:
        parts = _split(data, {"train": train, "valid": valid, "test": test}, source.split_seed)
    return ClickSplits(parts["train"], parts.get("valid"), parts.get("test"), table)


def _split(data: ClickData, fractions: dict[str, float], seed: int) -> dict[str, ClickData]:
    wanted = {name: fraction for name, fraction in fractions.items() if fraction > 0}
    return {"train": data} if list(wanted) == ["train"] else split_by_item(data, wanted, seed)


def _without_items(data: ClickData, seen: set[str]) -> ClickData:
    new = np.array([item.item_id not in seen for item in data.items])
    kept = data.select(new[data.comparisons.items], new[data.shown.items])
    if not len(kept.comparisons):
        raise UserError("data.valid has no pair of an item that training has not seen: give others.")
    left_out = {**data.left_out, "items of training": len(data.comparisons) - len(kept.comparisons)}
    return replace(kept, left_out={reason: count for reason, count in left_out.items() if count})
