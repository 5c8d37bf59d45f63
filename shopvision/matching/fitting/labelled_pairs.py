"""The labelled pairs that a training configuration names, split into those to learn from, to choose on, to measure."""

from __future__ import annotations

import numpy as np

from shopvision.database import snapshot
from shopvision.errors import UserError
from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_splits import split_by_component
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.config import FRACTIONS, MatcherConfig
from shopvision.matching.groups.reviews import reviewed_pairs


def read_splits(config: MatcherConfig) -> dict[str, PairTable]:
    """The pairs to train and validate on, and those of ``test`` where the configuration splits some off.

    Raises:
        UserError: the pairs cannot be used: there are none, some have no label, or all have the same.
    """
    source = config.data
    if source.pairs is None:
        # One moment, because an item may be deleted between two statements.
        with snapshot() as connection:
            table, where = reviewed_pairs(connection), "The catalogue's reviews"
    else:
        items = None if source.items is None else read_items(source.items, images=source.images)
        table, where = read_pairs(source.pairs, items, images=source.images), str(source.pairs)
    _require_labels(table, where)
    if source.valid is not None:
        splits = {"train": table, "valid": read_pairs(source.valid, items, images=source.images)}
        _require_labels(splits["valid"], str(source.valid))
    else:
        shares = zip(("train", "valid", "test"), source.fractions or FRACTIONS, strict=True)
        splits = split_by_component(table, {name: share for name, share in shares if share}, config.train.seed)
        for name in ("train", "valid"):
            _require_labels(splits[name], f"{where}, its share for {name},")
    if config.family.reads_text and not any(item.title or item.attributes for item in splits["train"].used_items()):
        raise UserError(f"The items of {where} have neither titles nor attributes: name their file with data.items.")
    return splits


def _require_labels(table: PairTable, where: str) -> None:
    if not len(table):
        raise UserError(f"{where} holds no pairs: name a file with labelled pairs, or import reviews.")
    if unlabelled := int((table.labels < 0).sum()):
        raise UserError(f"{where} holds {unlabelled:,} pairs without a label of {len(table):,}: label them 0 or 1.")
    if len(np.unique(table.labels)) == 1:
        raise UserError(
            f"{where} holds {len(table):,} pairs that are all labelled {table.labels[0]}: learning needs pairs of both "
            "labels."
        )
