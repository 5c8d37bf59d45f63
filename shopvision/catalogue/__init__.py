"""The catalogue: items with their pictures, and promotion plans."""

from shopvision.catalogue.calls import delete_items, delete_plans, upsert_items, upsert_plans
from shopvision.catalogue.write import Counts

__all__ = ["Counts", "delete_items", "delete_plans", "upsert_items", "upsert_plans"]
