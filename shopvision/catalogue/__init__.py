"""The catalogue: items with their pictures, and promotion plans."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shopvision.catalogue.api import delete_items, delete_plans, upsert_items, upsert_plans
    from shopvision.catalogue.row_upserts import Counts

__all__ = ["Counts", "delete_items", "delete_plans", "upsert_items", "upsert_plans"]


def __getattr__(name: str) -> Any:
    """Calls need the database layer, whose import would double the start of a process that only checks records."""
    if name in __all__:
        return getattr(import_module("shopvision.catalogue.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
