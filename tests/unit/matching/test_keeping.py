"""Which item of a group to keep, rule by rule, and what it takes over from the others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shopvision.errors import UserError
from shopvision.matching.groups.keeping import Member, Picture, choose
from shopvision.matching.options import KeepOptions

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def member(item_id: str, day: int = 1, **fields: Any) -> Member:
    return Member(item_id, DAY.replace(day=day), **fields)


def kept(*members: Member, **options: Any) -> tuple[str, str]:
    chosen = choose(members, KeepOptions(**options))
    assert choose(members[::-1], KeepOptions(**options)) == chosen
    return chosen.item_id, chosen.rule


TITLED = {"title": "Shirt"}


@pytest.mark.parametrize(
    ("members", "options", "expected"),
    [
        (({"source": "feed"}, {"source": "own"}), {"sources": ("own", "feed")}, ("b", "source")),
        (({}, {"source": "feed"}), {"sources": ("feed",)}, ("b", "source")),
        (({"source": "x"}, {"source": "y"}), {"sources": ("own",)}, ("a", "id")),
        (({"sold": 3}, {"sold": 20.5}), {}, ("b", "sold")),
        (({}, {"sold": 0}), {}, ("b", "sold")),  # known to be none is more than not known
        (({"texts": TITLED}, {"texts": TITLED, "has_price": True}), {}, ("b", "complete")),
        (({"attributes": [("Size", "M"), ("size:", "L")]}, {"attributes": [("a", "1"), ("b", "1")]}), {},
         ("b", "complete")),  # one key in two spellings is one
        (({"variant_keys": ["size"]}, {}), {}, ("a", "complete")),
        (({"pictures": [Picture("u", pixels=100)]}, {"pictures": [Picture("v", pixels=400)]}), {}, ("b", "resolution")),
        (({"pictures": [Picture("u")]}, {"pictures": [Picture("v", pixels=1)]}), {}, ("b", "resolution")),
        (({"day": 2}, {"day": 1}), {}, ("b", "oldest")),
        (({"day": 2}, {"day": 1}), {"rules": ("newest",)}, ("a", "newest")),
        (({"day": 2, "texts": TITLED}, {"day": 1}), {"rules": ("oldest", "complete")}, ("b", "oldest")),
        (({}, {}), {}, ("a", "id")),
    ],
)  # fmt: skip
def test_the_first_rule_that_tells_items_apart_decides(
    members: tuple[dict[str, Any], ...], options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert kept(*(member(name, **fields) for name, fields in zip("ab", members, strict=True)), **options) == expected


def test_what_the_kept_item_lacks_is_lent_by_the_best_that_has_it() -> None:
    one = member(
        "kept", texts={"title": "Shirt", "brand": ""}, attributes=[("Colour", "red")], variant_keys=["Size"],
        pictures=[Picture("1.jpg", b"1"), Picture("2.jpg")], sold=9,
    )  # fmt: skip
    two = member(
        "second", texts={"title": "A shirt", "brand": "Myn"},
        attributes=[("colour", "rose"), ("Fabric", "linen"), ("FABRIC", "cotton"), ("SIZE", "M"), ("Fabric", "linen")],
        pictures=[Picture("elsewhere/1.jpg", b"1"), Picture("2.jpg", b"2"), Picture("3.jpg", b"3")], sold=5,
    )  # fmt: skip
    three = member(
        "third", texts={"brand": "Other", "description": "Soft."}, attributes=[("fabric", "wool"), ("fit", "slim")],
        pictures=[Picture("3b.jpg", b"3"), Picture("2b.jpg", b"2")], sold=1,
    )  # fmt: skip
    chosen = choose([three, two, one], KeepOptions())
    assert chosen.item_id == "kept"
    assert chosen.lends == {
        "second": [
            {"field": "brand", "values": ["Myn"]},
            {"field": "attributes", "key": "Fabric", "values": ["linen", "cotton"]},
            {"field": "images", "values": ["3.jpg"]},
        ],
        "third": [
            {"field": "description", "values": ["Soft."]},
            {"field": "attributes", "key": "fit", "values": ["slim"]},
        ],
    }


def test_one_alone_is_kept() -> None:
    assert kept(member("a")) == ("a", "id")


@pytest.mark.parametrize("rules", [(), ("complete", "complete"), ("best",)])
def test_rules_that_make_no_sense(rules: tuple[Any, ...]) -> None:
    with pytest.raises(UserError, match="give some of source, sold, complete, resolution, oldest, newest, each once"):
        KeepOptions(rules=rules)
