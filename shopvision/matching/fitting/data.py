"""Where pairs and items come from, and how pairs are split: the door to the modules that do it."""

from __future__ import annotations

from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_splits import is_unseen, seen_categories, split_by_component
from shopvision.items.pair_table import PairTable
from shopvision.matching.groups.reviews import reviewed_pairs

__all__ = [
    "PairTable",
    "is_unseen",
    "items_from_catalogue",
    "read_items",
    "read_pairs",
    "reviewed_pairs",
    "seen_categories",
    "split_by_component",
]
