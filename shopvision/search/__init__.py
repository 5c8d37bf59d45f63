"""Finding items that look like a picture, or like another item."""

from shopvision.search.items import CatalogueSearch, FoundItem, SearchResult, search_image, search_item

__all__ = ["CatalogueSearch", "FoundItem", "SearchResult", "search_image", "search_item"]
