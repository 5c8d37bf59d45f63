"""Items line by line beside each other, as pages show them to people."""

from __future__ import annotations

from collections.abc import Sequence

from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key


def side_by_side(items: Sequence[Item], fields: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(name, text of each item): the ``fields`` of ``Item`` first, then every attribute that an item has.

    Names that ``attribute_key`` takes for one are one line, under their first spelling.
    """
    lines: dict[str, tuple[str, list[list[str]]]] = {}
    for place, item in enumerate(items):
        texts = [(field, (getattr(item, field),)) for field in fields]
        for name, values in [*texts, *item.attributes.items()]:
            cell = lines.setdefault(attribute_key(name), (name, [[] for _ in items]))[1][place]
            cell += [value for value in values if value and value not in cell]
    return [(name, [", ".join(cell) for cell in cells]) for name, cells in lines.values()]
