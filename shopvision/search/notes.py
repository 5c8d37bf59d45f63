"""What goes into a search by its options, and what there is to say about its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from shopvision.index.generation import Generation
from shopvision.search.filters import ItemFilter
from shopvision.search.options import SearchOptions
from shopvision.search.query_models import QueryModels
from shopvision.search.results import FoundItem


def item_filter(
    options: SearchOptions, label: str | None = None, classes: Mapping[str, str] = MappingProxyType({})
) -> ItemFilter:
    """The filter for a garment.

    Args:
        options: what is asked for.
        label: class of the garment.
        classes: category path -> class; without any, the class does not count.
    """
    by_class = label is not None and options.by_class and bool(classes)
    return ItemFilter(
        category=options.category,
        brands=tuple(dict.fromkeys(brand.strip() for brand in options.brands)),
        price_from=options.price_from,
        price_to=options.price_to,
        label=label if by_class else None,
        classes=tuple(sorted(classes.items())) if by_class else (),
    )


def item_notes(items: Sequence[FoundItem], one: ItemFilter, options: SearchOptions) -> tuple[str, ...]:
    """About the items of one garment, or of one item."""
    notes = []
    if not one.is_empty and not any(item.fits for item in items):
        others = " These are near, but do not fit." if items else ""
        notes.append(f"No item fits: {one}.{others}")
    if options.collapse is not None and items and all(item.style is None for item in items):
        notes.append(f"None of these items has a value under '{options.collapse}': no variants were put together.")
    if apart := sum(not item.is_comparable for item in items):
        notes.append(
            f"{apart} of these items cannot be compared: encoders of other classes made their vectors. A box has the "
            "encoder of the class that is named with it."
        )
    return tuple(notes)


def photo_notes(generation: Generation, made: QueryModels, options: SearchOptions) -> list[str]:
    """About a whole answer."""
    notes = []
    if not generation.live:
        notes.append("The index holds no pictures.")
    if options.by_class and not made.classes:
        notes.append(f"{generation.model} does not know which categories belong to a class: classes do not count.")
    if options.colour and not made.has_regions:
        notes.append(f"{generation.model} keeps no regions of the catalogue's pictures: colours do not count.")
    return notes


def score_notes(generation: Generation, items: Sequence[FoundItem], least: float | None) -> tuple[str, ...]:
    """About what was found for a text.

    Args:
        generation: that was searched.
        items: the best first.
        least: score from which on a picture shows what a text says.
    """
    if not generation.live:
        return ("The index holds no pictures.",)
    if least is None or not items or max(item.score for item in items) >= least:
        return ()
    return (f"Nothing scores {least:.2f}, from which on a picture shows what a text says: these are the nearest.",)
