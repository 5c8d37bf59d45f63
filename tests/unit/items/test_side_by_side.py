"""Items as people see them beside each other."""

from __future__ import annotations

from shopvision.items.item import Item
from shopvision.items.side_by_side import side_by_side


def test_names_that_differ_in_capitals_are_one_line() -> None:
    one = Item("1", brand="Myn", attributes={"Colour": ("blue",), "size": ("L", "M")})
    other = Item("2", price="5", attributes={"SIZE": ("M",), "colour": ("navy",), "Brand": ("Sun",)})
    assert side_by_side([one, other], ("brand", "price")) == [
        ("brand", ["Myn", "Sun"]), ("price", ["", "5"]), ("Colour", ["blue", "navy"]), ("size", ["L, M", "M"]),
    ]  # fmt: skip


def test_a_field_and_an_attribute_of_its_name_are_one_line() -> None:
    item = Item("1", brand="Myn", attributes={"brand": ("Myn", "Sun")})
    assert side_by_side([item], ("brand",)) == [("brand", ["Myn, Sun"])]
