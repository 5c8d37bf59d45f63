"""Do two items name the same model? Told to a pair model in words, because it reads codes in pieces.

``DSC-W300`` and ``dscw300`` become different word pieces, and a small encoder needs many examples to see that they are
equal. Where the model's card says so, a sequence therefore starts with what the codes of both items say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shopvision.items.item import Item
from shopvision.items.text_normalisation import normalise

WORDS = ("", "same model;", "similar model;", "other model;")
UNKNOWN, SAME, SIMILAR, OTHER = range(4)

_CHUNK = re.compile(r"[A-Z0-9](?:[A-Z0-9_./\-]*[A-Z0-9])?")
_PUNCTUATION = re.compile(r"[_./\-]")
_MEASURE = re.compile(r"\d+[A-Z]{0,2}")  # 1080P, 500GB, 120V, 2008
_ARTICLE_NUMBER = re.compile(r"\d{6,}")
_LENGTHS = range(4, 25)


@dataclass(frozen=True, slots=True)
class ItemCodes:
    """Model codes of an item: those of its title, and those of title, description and attributes."""

    title: frozenset[str]
    everywhere: frozenset[str]


def item_codes(item: Item) -> ItemCodes:
    """The codes that the item's texts name."""
    title = _codes(item.title)
    values = (value for several in item.attributes.values() for value in several)
    return ItemCodes(title, title.union(*map(_codes, (item.description, *values))))


def agreement(left: ItemCodes, right: ItemCodes) -> int:
    """What the codes say; the same in both orders.

    Returns:
        ``SAME``: a code of one title stands somewhere in the other item; ``SIMILAR``: it is a part of a code there, or
        the other way round, as with a colour behind it; ``OTHER``: both titles have codes, and none is alike;
        ``UNKNOWN``: a title has no code. An index into ``WORDS``.
    """
    if left.title & right.everywhere or right.title & left.everywhere:
        return SAME
    if _alike(left.title, right.everywhere) or _alike(right.title, left.everywhere):
        return SIMILAR
    return OTHER if left.title and right.title else UNKNOWN


def _codes(text: str) -> frozenset[str]:
    """Chunks of letters and digits that are no measure, and long numbers, without dashes.

    Blocking has a wider notion of codes: a key too many costs it a look, while here it would be a wrong statement.
    """
    chunks = (_PUNCTUATION.sub("", found) for found in _CHUNK.findall(normalise(text).upper()))
    return frozenset(chunk for chunk in chunks if len(chunk) in _LENGTHS and _is_code(chunk))


def _is_code(chunk: str) -> bool:
    if _MEASURE.fullmatch(chunk):
        return _ARTICLE_NUMBER.fullmatch(chunk) is not None
    return not chunk.isalpha()


def _alike(some: frozenset[str], others: frozenset[str]) -> bool:
    return any(one in other or other in one for one in some for other in others)
