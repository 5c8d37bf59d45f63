"""Numbers that name a product, and what looks like them."""

from __future__ import annotations

import pytest

from shopvision.items.identifiers import identifiers
from shopvision.items.item import Item


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        # Check digits by hand: 400638133393?: 4+0*3+0+6*3+3+8*3+1+3*3+3+3*3+9+3*3 = 89, so 1.
        (Item("1", title="Pens 4006381333931"), {"gtin:04006381333931"}),
        (Item("1", attributes={"EAN:": ("4006381333931",)}), {"gtin:04006381333931"}),
        (Item("1", attributes={"code": ("400-6381 333931",)}), {"gtin:04006381333931"}),
        # A UPC-A is the EAN with a zero before it. 03600029145?: 0*3+3+6*3+0+0*3+0+2*3+9+1*3+4+5*3 = 58, so 2.
        (Item("1", attributes={"upc": ("036000291452",)}), {"gtin:00036000291452"}),
        (Item("1", attributes={"ean": ("0036000291452",)}), {"gtin:00036000291452"}),
        # 7351353?: 7*3+3+5*3+1+3*3+5+3*3 = 63, so 7.
        (Item("1", attributes={"EAN-8": ("73513537",)}), {"gtin:00000073513537"}),
        (Item("1", title="73513537", attributes={"date": ("73513537",)}), set()),  # so short only where it is called so
        (Item("1", title="Pens 4006381333932"), set()),  # no check digit
        (Item("1", title="0000000000000"), set()),
        (Item("1", title="1.4006381333931 a4006381333931 4006381333931,5"), set()),  # parts of other things
        (Item("1", brand="Sony", attributes={"MPN": ("dsc-W300/B",)}), {"mpn:sony:DSCW300B"}),
        (Item("1", brand="SONY", attributes={"Part Number": ("DSC W300 B",)}), {"mpn:sony:DSCW300B"}),
        (Item("1", attributes={"mpn": ("DSCW300",)}), set()),  # two makers may call two things so
        (Item("1", brand="Sony", attributes={"mpn": ("none",), "model": ("DSCW300",)}, title="DSCW300"), set()),
    ],
)  # fmt: skip
def test_what_names_a_product(item: Item, expected: set[str]) -> None:
    assert identifiers(item) == expected
