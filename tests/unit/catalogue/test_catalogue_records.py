"""Records: what is taken, in which form, and what is refused with which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shopvision.catalogue.picture_addresses import MAX_URI_BYTES, PictureRoot
from shopvision.catalogue.record_texts import RecordError, normalised
from shopvision.catalogue.row_conversion import ItemRow, item_row, plan_row
from shopvision.errors import UserError

ROOT = PictureRoot("file:///shop/")


def row(**fields: Any) -> ItemRow:
    return item_row(normalised({"item_id": "1", "images": ["s3://shop/1.jpg"], **fields}), ROOT)


def refused(**fields: Any) -> str:
    with pytest.raises(RecordError) as caught:
        row(**fields)
    return str(caught.value)


def test_every_field_finds_its_column() -> None:
    item = row(
        item_id=12,
        title="  Cafe\u0301 chair ",
        brand="",
        category=["Home", "Chairs"],
        attributes=[
            {"key": "color", "value": "red"},
            {"key": "color", "value": "blue"},
            {"key": "size", "value": None},
        ],
        sku_attributes="size:L|fit:slim",
        price="19.90",
        currency="eur",
        description="soft",
        updated_at="2026-01-02T03:04:05",
        stock=3,
        images=[{"file": "a b/é.jpg", "view": "main"}, {"uri": "https://cdn.example/2.jpg"}, "./c//d.jpg", "c/d.jpg"],
    )
    assert (item.item_id, item.title, item.brand, item.category) == ("12", "Café chair", None, "Home/Chairs")
    assert json.loads(item.attributes) == [{"key": "color", "value": "red"}, {"key": "color", "value": "blue"}]
    assert json.loads(item.sku_attributes) == [{"key": "size", "value": "L"}, {"key": "fit", "value": "slim"}]
    assert (item.price, item.currency, item.description, item.extra) == (19.9, "EUR", "soft", '{"stock":3}')
    assert item.source_updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert item.images == (
        ("file:///shop/a%20b/%C3%A9.jpg", "main"),
        ("https://cdn.example/2.jpg", None),
        ("file:///shop/c/d.jpg", None),
    )


def test_a_source_is_content_and_an_item_without_one_is_hashed_as_it_always_was() -> None:
    plain, blank, named = row(title="a"), row(title="a", source=" "), row(title="a", source=" shop-7 ")
    assert (plain.source, blank.source, named.source) == (None, None, "shop-7")
    assert plain.content_hash == blank.content_hash != named.content_hash
    assert plain.content_hash.hex() == "c85637122b4029977a85e595d68dafef"  # of the version before sources


def test_an_item_without_pictures() -> None:
    for images in ([], None, "", "[]"):
        assert row(images=images).images == ()
    assert item_row({"item_id": "1"}).images == ()


def test_numbers_where_text_is_expected_are_written_as_people_do() -> None:
    item = row(title=100000.0, brand=7, description=2.5, category=[1.0, "b"], attributes=[{"key": 5.0, "value": 42.0}])
    assert (item.title, item.brand, item.description, item.category) == ("100000", "7", "2.5", "1/b")
    assert json.loads(item.attributes) == [{"key": "5", "value": "42"}]


def test_texts_in_json_of_a_cell_are_composed_too() -> None:
    item = row(attributes=r'[{"key": "e\u0301", "value": "e\u0301"}]', images=r'["e\u0301.jpg"]')
    assert json.loads(item.attributes) == [{"key": "\u00e9", "value": "\u00e9"}]
    assert item.images[0][0].endswith("e%CC%81.jpg")


def test_long_whole_numbers_within_reason_are_kept() -> None:
    assert json.loads(row(serial=10**999).extra) == {"serial": 10**999}
    assert row(note="1" * 5_000).extra == '{"note":"' + "1" * 5_000 + '"}'


def test_picture_names_stay_byte_for_byte_while_texts_are_composed() -> None:
    item = item_row(normalised({"item_id": "e\u0301", "images": ["e\u0301.jpg"]}), PictureRoot("s3://shop/p/"))
    assert item.item_id == "\u00e9"
    assert item.images == (("s3://shop/p/e\u0301.jpg", None),)


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": [{"view": "main"}]}, "images[0]: neither `uri` nor `file`; give one of them"),
        ({"images": ["../../etc/passwd"]}, "images[0]: file '../../etc/passwd' is not inside the picture folder"),
        ({"images": ["a/../../b.jpg"]}, "is not inside the picture folder; give a path below it"),
        ({"images": ["/etc/passwd"]}, "is not inside the picture folder; give a path below it"),
        ({"images": ["ftp://host/a.jpg"]}, "images[0]: uri 'ftp://host/a.jpg' is not supported; use"),
        ({"images": ["s3://b/" + "x" * MAX_URI_BYTES]}, "images[0]: an address of more than 1,800 bytes"),
        ({"images": ["s3://b/a\0.jpg"]}, "images: a NUL character; remove it from the text"),
        ({"price": -1}, "price: negative; give a number from 0 on"),
        ({"price": float("nan")}, "price: not a finite number"),
        ({"price": "12,50"}, "price: not a number; write it like 19.90"),
        ({"price": True}, "price: not a number; write it like 19.90"),
        ({"price": "true"}, "price: not a number; write it like 19.90"),
        ({"price": "1_000"}, "price: not a number; write it like 19.90"),
        ({"updated_at": True}, "updated_at: not a time; write it like 2026-01-31T12:00:00Z"),
        ({"updated_at": "yesterday"}, "updated_at: not a time; write it like 2026-01-31T12:00:00Z"),
        ({"title": True}, "title: not a text; write it in quotes"),
        ({"title": 1.58e18}, "title: 1.58e+18 has lost its last digits; write it as text"),
        ({"title": float("nan")}, "title: not a finite number"),
        ({"stock": float("nan")}, "stock: not a finite number; leave it out where there is none"),
        ({"note": {"deep": [float("-inf")]}}, "note: not a finite number"),
        ({"note": {"deep": [-(10**1_000)]}}, "note: a number of more than 1,000 digits; write it as text"),
        ({"attributes": r'[{"key": "a", "value": "b\u0000"}]'}, "attributes: a NUL character"),
        ({"images": r'["s3://b/a\u0000.jpg"]'}, "images: a NUL character"),
        (
            {"attributes": '[{"key": "a", "value": "b", "c": 1' + "0" * 1_000 + "}]"},
            "attributes: a number of more than",
        ),
        ({"note": DEEP}, "note: nested 100 levels deep; make it flatter"),
        ({"attributes": DEEP}, "attributes: nested 100 levels deep; make it flatter"),
        ({"attributes": "[" * 5_000}, "attributes: broken JSON"),
        ({"a\0b": 1}, "a?b: a NUL character; remove it from the text"),
        ({"price": 1e300}, "price: more than 1,000,000,000,000; correct it"),
        ({"currency": "Euro"}, "currency: not a currency code; write three letters such as EUR"),
        ({"title": "a\0b"}, "title: a NUL character; remove it from the text"),
        ({"title": "\udce9"}, "title: not valid UTF-8; save the file as UTF-8"),
        ({"note": {"deep": ["\0"]}}, "note: a NUL character"),
        ({"title": "x" * 2_001}, "title: longer than 2,000 characters; shorten it"),
        ({"title": ["a"]}, "title: not a text; write it in quotes"),
        ({"item_id": "x" * 201}, "item_id: longer than 200 characters; shorten it"),
        ({"item_id": " "}, "item_id: empty; every record needs it"),
        ({"item_id": 12345.0}, "item_id: a number with a fraction is no id; write ids as text"),
        ({"attributes": "red"}, "attributes: 'red' has no colon; write key:value|key:value"),
        ({"attributes": "[{"}, "attributes: broken JSON"),
        ({"attributes": ["red"]}, "attributes[0]: not an object; write {...} with its keys"),
        ({"attributes": [{"value": "red"}]}, "attributes[0].key: missing; every record needs it"),
        ({"notes": "x" * 300_000}, "other keys: 300,012 bytes of JSON, at most 262,144"),
        ({"price": -1, "currency": "E"}, "price: negative; give a number from 0 on; and currency: not a currency code"),
    ],
)
def test_a_wrong_item_is_refused_with_field_and_mend(fields: dict[str, Any], message: str) -> None:
    assert message in refused(**fields)


def test_a_file_needs_a_root() -> None:
    with pytest.raises(RecordError, match="has no folder to start from; give a full `uri`"):
        item_row({"item_id": "1", "images": ["a.jpg"]})


def test_the_root_of_pictures_must_exist(tmp_path: Path) -> None:
    assert PictureRoot.parse(str(tmp_path)).uri("a.jpg") == (tmp_path / "a.jpg").as_uri()
    assert PictureRoot.parse("s3://shop/p").uri("a.jpg") == "s3://shop/p/a.jpg"
    with pytest.raises(UserError, match="there is no such folder"):
        PictureRoot.parse(str(tmp_path / "missing"))


def test_the_hash_tells_record_from_pictures_and_ignores_form() -> None:
    base = row(price=10.0, a=1, b=2).content_hash
    assert row(b=2, a=1, price="10.00").content_hash == base
    assert len(base) == 16
    other_price, other_picture = (
        row(price=11, a=1, b=2).content_hash,
        row(price=10, a=1, b=2, images=["x.jpg"]).content_hash,
    )
    assert (other_price[:8] != base[:8], other_price[8:] == base[8:]) == (True, True)
    assert (other_picture[:8] == base[:8], other_picture[8:] != base[8:]) == (True, True)


def test_a_plan_in_either_form_of_its_lists() -> None:
    as_text = plan_row(
        {"plan_id": "p", "name": "n", "kwds": "a, b,,a", "member_item_ids": "1|2|1", "desc": "", "kind": "x"}
    )
    as_list = plan_row({"plan_id": "p", "name": "n", "kwds": ["a", "b"], "member_item_ids": [1, "2"], "kind": "x"})
    assert as_text == as_list
    assert (as_list.keywords, as_list.members, as_list.description) == (["a", "b"], ("1", "2"), None)
    with pytest.raises(RecordError, match="name: missing; every record needs it"):
        plan_row({"plan_id": "p"})
