"""Finding items that look like a photo's garments, or like another item."""

from shopvision.search.options import GarmentChoice, SearchOptions
from shopvision.search.results import FoundItem, Garment, ItemResult, PhotoFailure, PhotoResult
from shopvision.search.visual import VisualSearch

__all__ = [
    "FoundItem", "Garment", "GarmentChoice", "ItemResult", "PhotoFailure", "PhotoResult", "SearchOptions",
    "VisualSearch",
]  # fmt: skip
