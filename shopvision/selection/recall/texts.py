"""What a recall model reads of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from shopvision.items.text_normalisation import attribute_key, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shopvision.items.item import Item

TextForm = Literal["name", "attributes", "name_attributes"]
TEXT_FORMS: tuple[TextForm, ...] = get_args(TextForm)

# No picture shows them.
_UNSEEN_KEYS = {"currency", "price"}
_NO_WORDS = {"yes", "no", "true", "false", "none", "n/a"}


def recall_text(item: Item, form: TextForm = "name") -> str:
    """The text that pictures of an item are looked for by.

    Args:
        item: its texts may be empty.
        form: ``name`` is the title alone, as published; ``attributes`` the brand and the values of all attributes, as
            far as they are words; ``name_attributes`` both. None has the price or the description.
    """
    title = normalise(item.title)
    match form:
        case "name":
            return title
        case "attributes":
            return ", ".join(_values(item))
        case "name_attributes":
            return ", ".join(filter(None, [title, *_values(item)]))


def other_texts(item: Item, form: TextForm) -> tuple[str, ...]:
    """The texts of the other forms, where an item has them and they differ."""
    texts = dict.fromkeys(recall_text(item, other) for other in TEXT_FORMS if other != form)
    return tuple(text for text in texts if text and text != recall_text(item, form))


def _values(item: Item) -> Iterator[str]:
    """Brand and values, each once; without their keys, which no title names either."""
    given = [item.brand]
    for key, values in item.attributes.items():
        given += [] if attribute_key(key) in _UNSEEN_KEYS else values
    for value in dict.fromkeys(map(normalise, given)):
        if any(character.isalpha() for character in value) and value.casefold() not in _NO_WORDS:
            yield value
