"""Do two items name the same model? Told to a pair model in words, because it reads codes in pieces.

``DSC-W300`` and ``dscw300`` become different word pieces, and a small encoder needs many examples to see that they are
equal. Where the model's card says so, a sequence therefore starts with what the codes of both items say.

What looks like a code may be a specification that thousands of items share. Those with a known unit or of a known
standard (``1920x1080``, ``10000mAh``, ``USB3.0``, ``IP68``, ``DDR4``) are none; and a code that many training items
carry says too little to count (``common_codes``): of pairs of offers of computers that shared a code 61 in 100 were the
same product before, and about 95 in 100 are now, on the validation pairs that the patterns were chosen with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

from shopvision.items.item import Item
from shopvision.items.text_normalisation import normalise

WORDS = ("", "same model;", "similar model;", "other model;")
UNKNOWN, SAME, SIMILAR, OTHER = range(4)

_CHUNK = re.compile(r"[A-Z0-9](?:[A-Z0-9_./\-]*[A-Z0-9])?")
_PUNCTUATION = re.compile(r"[_./\-]")
# Of one or two letters every unit is taken for one: 1080P, 500GB, 120V; and 2008.
_UNIT = (
    "(?:[A-Z]{0,2}|MAH|KWH|GHZ|MHZ|KHZ|GBIT|MBIT|GBPS|MBPS|KBPS|GBS|MBS|RPM|DPI|TPI|INCH|LBS|LUMEN|KVA|PIN|BIT|CORE|PORT"
    "|PACK|WAY|LINE|DISC|SPEED|PCS|PIECE|COUNT|FPS|CELL|BAY|SLOT|BTU|PSI|IN1|YEAR|MONTH|DAY|HOUR|GEN)S?"
)
_SPECIFICATION = re.compile(
    rf"\d+{_UNIT}|\d+X\d+(?:X\d+)?{_UNIT}"  # also 1920X1080, 2X8GB, 10X15CM
    r"|(?:LP|G)?DDR\d[A-Z0-9]{0,5}|PC[234]\d{4,5}[A-Z]?"  # memory: DDR4, DDR42400, PC4-19200
    r"|\d+[KMGT]B(?:SSD|HDD|RAM|ROM)|\d+(?:ML|CL|L|G|KG|OZ|[KMGT]B)X\d+"  # 256GBSSD, 250MLX24
    r"|(?:EU|UK|US)\d{1,3}|SPF\d\d"  # sizes of shoes: EU42; sunscreen
    r"|USB\d+[A-Z]?|IP\d\d[A-Z]?|IPX\d|H26[45]|80211[A-Z]{0,3}|WIN\d+[A-Z]*"
    r"|(?:SATA|SAS|PCIE|HDMI|DVI|CAT|WIFI|RAID|RJ|LGA)\d{1,4}(?:X\d+)?"
)
_MEASURE = r"\d+(?:\.\d+)?(?:[KMGT]B|[KMG]?HZ|MAH|MP|MM|CM|ML|KG|[VAWMLGKDP])"
_SEVERAL = re.compile(rf"{_MEASURE}(?:[/\-]{_MEASURE})+")  # 8GB/256GB, 110V-240V
_ARTICLE_NUMBER = re.compile(r"\d{6,}")
_LENGTHS = range(4, 25)
# Offers of one product, of which a catalogue has some, share its code; chosen on validation pairs of computers.
MOST_ITEMS = 8


@dataclass(frozen=True, slots=True)
class ItemCodes:
    """Model codes of an item: those of its title, and those of title, description and attributes."""

    title: frozenset[str]
    everywhere: frozenset[str]


def item_codes(item: Item, common: Set[str] = frozenset()) -> ItemCodes:
    """The codes that the item's texts name, but for those that are ``common``."""
    title = _codes(item.title) - common
    values = (value for several in item.attributes.values() for value in several)
    return ItemCodes(title, title.union(*map(_codes, (item.description, *values))) - common)


def common_codes(items: Iterable[Item]) -> tuple[str, ...]:
    """Codes that more than ``MOST_ITEMS`` of the training items carry, in order."""
    carried = Counter(code for item in items for code in item_codes(item).everywhere)
    return tuple(sorted(code for code, often in carried.items() if often > MOST_ITEMS))


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
    """Chunks of letters and digits that are no specification, and long numbers, without dashes.

    Blocking has a wider notion of codes: a key too many costs it a look, while here it would be a wrong statement.
    """
    found = (chunk for chunk in _CHUNK.findall(normalise(text).upper()) if not _SEVERAL.fullmatch(chunk))
    chunks = (_PUNCTUATION.sub("", chunk) for chunk in found)
    return frozenset(chunk for chunk in chunks if len(chunk) in _LENGTHS and _is_code(chunk))


def _is_code(chunk: str) -> bool:
    if _SPECIFICATION.fullmatch(chunk):
        return _ARTICLE_NUMBER.fullmatch(chunk) is not None
    return not chunk.isalpha()


def _alike(some: frozenset[str], others: frozenset[str]) -> bool:
    return any(one in other or other in one for one in some for other in others)
