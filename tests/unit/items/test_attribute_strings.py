"""Attribute strings as item files hold them."""

from __future__ import annotations

import pytest

from shopvision.errors import ItemError
from shopvision.items.attribute_strings import merge_attributes, parse_attributes


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("  ", []),
        ("颜色#:#红", [("颜色", "红")]),
        ("a#:#1#;#b#:#2", [("a", "1"), ("b", "2")]),
        ("size#:#S#;#size#:#M#;#size#:#S", [("size", "S"), ("size", "M"), ("size", "S")]),
        (" a #:#  1 2 ", [("a", "1 2")]),
        # separators inside a value, also at its ends
        ("note#:#x#:#y", [("note", "x#:#y")]),
        ("lang#:#C##;#b#:#2", [("lang", "C#"), ("b", "2")]),
        ("ratio#:#16:9;4:3#;#b#:##1", [("ratio", "16:9;4:3"), ("b", "#1")]),
        ("url#:#https://a.b/c#d", [("url", "https://a.b/c#d")]),
        # what says nothing
        ("#;#a#:#1#;##;# #;#", [("a", "1")]),
        ("a#:##;#b#:#2", [("b", "2")]),
        ("#:#1#;#b#:#2", [("b", "2")]),
    ],
)
def test_parsed_exactly(text: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_attributes(text) == pairs


@pytest.mark.parametrize(
    ("text", "number", "part"),
    [
        ("a#:#1#;#b#", 2, "'b#'"),
        ("a:1;b:2", 1, "'a:1;b:2'"),
        ("a#:#1#;##;#material cot#;#c#:#3", 3, "'material cot'"),
        ("x" * 500, 1, f"'{'x' * 60}'"),
    ],
)
def test_broken_part_is_named(text: str, number: int, part: str) -> None:
    with pytest.raises(ItemError) as raised:
        parse_attributes(text)
    assert raised.value.code == "broken_attributes"
    assert raised.value.message.startswith(f"attribute {number} is broken: {part} has no #:#")


def test_values_are_merged_sorted_and_keys_stay_in_order() -> None:
    merged = merge_attributes([("size", "M"), ("colour", "red")], [("size", "L"), ("fit", "slim"), ("size", "M")])
    assert list(merged.items()) == [("size", ("L", "M")), ("colour", ("red",)), ("fit", ("slim",))]


def test_keys_that_differ_in_capitals_are_one_and_spelled_as_first_seen() -> None:
    merged = merge_attributes([("Colour", "red"), ("size", "M")], [("COLOUR", "blue"), ("\uff33ize :", "L")])
    assert list(merged.items()) == [("Colour", ("blue", "red")), ("size", ("L", "M"))]
