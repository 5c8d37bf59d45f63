"""What an item says of itself in values that other items may share: its brand, category, trade and attributes."""

from __future__ import annotations

from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key, normalise

Fact = tuple[str, str]
"""(relation, value): ``("colour", "red")``."""

# It says what a price means, and nothing of the item.
_SAYS_NOTHING = "currency"


def item_facts(item: Item) -> list[Fact]:
    """Every value of every key, each once; brand, category and trade first, then attributes in the item's own order.

    Keys are compared as ``attribute_key`` does, values without regard to capitals, width and blanks.
    """
    said = [
        ("brand", item.brand),
        ("category", item.category),
        ("industry", item.industry),
        *((key, value) for key, values in item.attributes.items() for value in values),
    ]
    facts = ((attribute_key(key), value_name(value)) for key, value in said)
    return list(dict.fromkeys((key, value) for key, value in facts if key and value and key != _SAYS_NOTHING))


def value_name(value: str) -> str:
    """By what values are compared."""
    return normalise(normalise(value).casefold())
