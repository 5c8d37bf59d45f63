"""Numbers and codes that name one product all over the world: equal ones are no matter of a model's opinion.

Counted are GTINs (EAN, UPC, ISBN-13) wherever they stand, by their check digit (GS1 General Specifications, 7.9), and
manufacturers' part numbers where an attribute is called so, together with the brand. A code that merely stands in a
title is none: an accessory names the product that it fits.
"""

from __future__ import annotations

import re

from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key, normalise

GTIN_LENGTHS = (8, 12, 13, 14)
SHORT = 8  # so few digits are a date as often as a number
GTIN_KEYS = frozenset({
    "gtin", "gtin8", "gtin12", "gtin13", "gtin14", "gtin-8", "gtin-12", "gtin-13", "gtin-14", "ean", "ean8", "ean13",
    "ean-8", "ean-13", "upc", "upc-a", "isbn", "isbn13", "isbn-13", "barcode", "条码", "条形码", "商品条码", "바코드",
})  # fmt: skip
PART_KEYS = frozenset({
    "mpn", "part number", "partnumber", "part no", "part_number", "manufacturer part number", "mfr part number",
    "manufacturer_part_number", "mfr. part number", "herstellernummer", "货号", "款号",
})  # fmt: skip
SHORTEST_PART = 5

_DIGITS = re.compile(r"(?<![\w.,-])\d{8,14}(?![\w-]|[.,]\d)")
_BETWEEN = re.compile(r"[\s_./\-]")


def identifiers(item: Item) -> frozenset[str]:
    """What names the product: ``gtin:`` and 14 digits, ``mpn:``, the brand and the part number."""
    found = {_gtin(digits) for digits in _DIGITS.findall(normalise(item.title)) if len(digits) > SHORT}
    brand = normalise(item.brand).casefold()
    for name, values in item.attributes.items():
        key = attribute_key(name)
        for value in values:
            code = _BETWEEN.sub("", normalise(value)).upper()
            if code.isascii() and code.isdigit() and (len(code) > SHORT or key in GTIN_KEYS):
                found.add(_gtin(code))
            if key in PART_KEYS and brand and len(code) >= SHORTEST_PART and any(map(str.isdigit, code)):
                found.add(f"mpn:{brand}:{code}")
    return frozenset(found - {""})


def _gtin(digits: str) -> str:
    """``digits`` as a GTIN-14; empty where they are none."""
    if len(digits) not in GTIN_LENGTHS or len(set(digits)) == 1:
        return ""
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return f"gtin:{digits.zfill(14)}" if weighted % 10 == 0 else ""
