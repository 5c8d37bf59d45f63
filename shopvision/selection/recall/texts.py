"""What a recall model reads of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shopvision.items.item_texts import FIRST, LAST, TextBuilder

if TYPE_CHECKING:
    from shopvision.items.item import Item

TextForm = Literal["name", "name_attributes"]

# No picture shows them.
UNSEEN_KEYS = {*LAST, "currency"}

_BUILDER = TextBuilder("title_attributes")


def recall_text(item: Item, form: TextForm = "name") -> str:
    """The text that pictures of an item are looked for by.

    Args:
        item: its title may be empty.
        form: ``name`` is the title alone, as published; ``name_attributes`` has the brand and all values of its
            attributes behind it. Neither has the price or the description.
    """
    text = _BUILDER.item(item)
    if form == "name":
        return text.title
    # "colour:red;" -> "colour red": what stands for itself in a title has no key before it.
    values = [
        piece.removesuffix(";").partition(":")[2] if key == FIRST else piece.removesuffix(";").replace(":", " ", 1)
        for key, piece in zip(text.keys, text.pieces, strict=True)
        if key not in UNSEEN_KEYS
    ]
    return ", ".join(filter(None, [text.title, *values]))
