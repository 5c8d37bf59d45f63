"""Finding items that look like a photo's garments, like another item, or that show what a text says."""

from shopvision.search.options import GarmentChoice, SearchOptions
from shopvision.search.results import FoundItem, Garment, ItemResult, PhotoFailure, PhotoResult, TextResult
from shopvision.search.visual import VisualSearch

__all__ = [
    "FoundItem", "Garment", "GarmentChoice", "ItemResult", "PhotoFailure", "PhotoResult", "SearchOptions",
    "TextResult", "VisualSearch",
]  # fmt: skip
