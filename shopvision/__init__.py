"""Computer vision for an online shop: catalogue, pictures, models, index and search, usable without any queue.

The names below are the library's public surface, as docs/library.md shows it. Each is imported when it is first used,
so ``import shopvision`` loads nothing heavy. Whatever else the package holds may change from version to version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shopvision.catalogue import delete_items, delete_plans, upsert_items, upsert_plans
    from shopvision.database import connect
    from shopvision.encoders.image_encoder import ImageEncoder
    from shopvision.errors import ItemError, JobError, ShopvisionError, TransientError, UserError
    from shopvision.index.generation import Hit
    from shopvision.index.opening import open_index
    from shopvision.index.reader import IndexReader
    from shopvision.items.catalogue_items import items_from_catalogue
    from shopvision.items.item import Item
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.scoring.predict import BaseScorer, ScoredPair
    from shopvision.models import load as load_model
    from shopvision.search import (
        FoundItem,
        Garment,
        GarmentChoice,
        ItemResult,
        PhotoFailure,
        PhotoResult,
        SearchOptions,
        TextResult,
        VisualSearch,
    )
    from shopvision.selection.clik.predict import PlanRanker, RankedPicture
    from shopvision.settings import Settings, get_settings

__version__ = "0.1.0"

__all__ = [
    "BaseScorer", "FoundItem", "Garment", "GarmentChoice", "Hit", "ImageEncoder", "IndexReader", "Item",
    "ItemError", "ItemResult", "JobError", "PairTable", "PhotoFailure", "PhotoResult", "PlanRanker",
    "RankedPicture", "ScoredPair", "SearchOptions", "Settings", "ShopvisionError", "TextResult", "TransientError",
    "UserError", "VisualSearch", "__version__", "connect", "delete_items", "delete_plans", "get_settings",
    "items_from_catalogue", "load_model", "open_index", "read_items", "read_pairs", "upsert_items",
    "upsert_plans",
]  # fmt: skip

_HOMES = {
    "shopvision.catalogue": ("delete_items", "delete_plans", "upsert_items", "upsert_plans"),
    "shopvision.database": ("connect",),
    "shopvision.encoders.image_encoder": ("ImageEncoder",),
    "shopvision.errors": ("ItemError", "JobError", "ShopvisionError", "TransientError", "UserError"),
    "shopvision.index.generation": ("Hit",),
    "shopvision.index.opening": ("open_index",),
    "shopvision.index.reader": ("IndexReader",),
    "shopvision.items.catalogue_items": ("items_from_catalogue",),
    "shopvision.items.item": ("Item",),
    "shopvision.items.item_files": ("read_items",),
    "shopvision.items.pair_files": ("read_pairs",),
    "shopvision.items.pair_table": ("PairTable",),
    "shopvision.matching.scoring.predict": ("BaseScorer", "ScoredPair"),
    "shopvision.models": ("load_model",),
    "shopvision.search": (
        "FoundItem", "Garment", "GarmentChoice", "ItemResult", "PhotoFailure", "PhotoResult", "SearchOptions",
        "TextResult", "VisualSearch",
    ),
    "shopvision.selection.clik.predict": ("PlanRanker", "RankedPicture"),
    "shopvision.settings": ("Settings", "get_settings"),
}  # fmt: skip
_NAMES_AT_HOME = {"load_model": "load"}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(module), _NAMES_AT_HOME.get(name, name))
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
