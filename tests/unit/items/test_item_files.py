"""Item and pair files of every form."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item, pair_key
from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_table import PairTable


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if path.suffix == ".jsonl":
        path.write_text(lines, encoding="utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for record in records for key in record)))
            writer.writeheader()
            writer.writerows(records)
    else:
        parquet.write_table(pa.Table.from_pylist([dict(record) for record in records]), path)
    return path


def pairs(table: PairTable) -> list[tuple[str, str, int]]:
    ids = [item.item_id for item in table.items]
    rows = zip(table.left.tolist(), table.right.tolist(), table.labels.tolist(), strict=True)
    return [(ids[left], ids[right], label) for left, right, label in rows]


# Items


REFERENCE_ITEM = {
    "item_id": "0a1b",
    "industry_name": "家居",
    "cate_id": "77",
    "cate_name": "茶壶",
    "cate_id_path": "1>7>77",
    "cate_name_path": "家居>茶具>茶壶",
    "item_image_name": "0a1b.jpg",
    "title": " 紫砂壶 ",
    "item_pvs": "材质#:#紫砂#;#产地#:#宜兴",
    "sku_pvs": "颜色#:#红#;#颜色#:#黑#;#产地#:#江苏",
}


def test_item_of_the_reference(tmp_path: Path) -> None:
    items = read_items(write(tmp_path / "item_info.jsonl", [REFERENCE_ITEM, {"item_id": "2c", "item_pvs": None}]))
    assert items == {
        "0a1b": Item(
            "0a1b",
            title="紫砂壶",
            category="茶壶",
            attributes={"材质": ("紫砂",), "产地": ("宜兴", "江苏"), "颜色": ("红", "黑")},
            picture=(tmp_path / "item_images" / "0a1b.jpg").as_uri(),
            industry="家居",
            category_path="家居>茶具>茶壶",
        ),
        "2c": Item("2c"),
    }
    assert list(items["0a1b"].attributes) == ["材质", "产地", "颜色"]


def test_item_of_the_catalogue(tmp_path: Path) -> None:
    record = {
        "item_id": 7,
        "title": "Hoodie",
        "category": ["Men", "Tops"],
        "price": 52.0,
        "currency": "EUR",
        "attributes": [{"key": "climate", "value": "Cool"}, {"key": "climate", "value": "All"}],
        "sku_attributes": {"size": ["S", "XL"]},
        "images": [{"file": "a b.jpg", "view": "main"}, {"file": "c.jpg"}],
        "style": "MH01",
        "flags": {"new": "Yes"},
    }
    path = write(tmp_path / "items.jsonl", [record])
    (tmp_path / "photos").mkdir()
    (item,) = read_items(path, images=str(tmp_path / "photos")).values()
    assert item == Item(
        "7",
        title="Hoodie",
        category="Men/Tops",
        price="52",
        attributes={"climate": ("All", "Cool"), "size": ("S", "XL"), "currency": ("EUR",)},
        picture=(tmp_path / "photos").as_uri() + "/a%20b.jpg",
    )


def test_regions_of_a_picture(tmp_path: Path) -> None:
    record = {"item_id": "a", "image": "a.jpg", "regions": [[0, 0.25, 0.5, 1], [0.1, 0.1, 0.2, 0.2]]}
    (item,) = read_items(write(tmp_path / "items.jsonl", [record])).values()
    assert item.regions == ((0.0, 0.25, 0.5, 1.0), (0.1, 0.1, 0.2, 0.2))
    assert item.content_hash() != replace(item, regions=item.regions[:1]).content_hash()
    for box in ([0, 0, 1], [0, 0, 10, 10], [0.5, 0, 0.5, 1], "left"):
        with pytest.raises(UserError, match=r"regions holds .* in shares of the picture, 0 to 1"):
            read_items(write(tmp_path / "bad.jsonl", [record | {"regions": [box]}]))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_table_of_items(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"id": "a", "name": "Lamp", "brand": "Ikea", "colour": "red", "width": 12, "cluster_id": "tells", "image": ""},
        {"id": "b", "name": "", "brand": "", "colour": "", "width": None, "cluster_id": "x", "image": "s3://b/k.jpg"},
    ]
    assert read_items(write(tmp_path / f"items{suffix}", rows)) == {
        "a": Item("a", title="Lamp", brand="Ikea"),
        "b": Item("b", picture="s3://b/k.jpg"),
    }


def test_taobao_rows(tmp_path: Path) -> None:
    path = tmp_path / "items.tsv"
    host = "https://img.alicdn.com/imgextra/"
    path.write_text(
        f"631\t棉衣\t{host}{host}{host}i1/a.jpg\t年龄#:#14#;#年龄#:#12\t女装\n\n632\tx\t{host}///img.alicdn.com/imgextra/b.jpg\t\t\n",
        encoding="utf-8",
    )
    assert read_items(path) == {
        "631": Item("631", "棉衣", "女装", attributes={"年龄": ("12", "14")}, picture=f"{host}i1/a.jpg"),
        "632": Item("632", "x", picture=f"{host}b.jpg"),
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"item_id": "z", "item_pvs": "a#:#1#;#b#:"}, "item 'z': attribute 2 is broken: 'b#:' has no #:#"),
        ({"title": "no id"}, "no item_id"),
        ({"item_id": "z", "title": ["a"]}, "item 'z': title is no text"),
        ({"item_id": "z", "attributes": ["red"]}, "item 'z': attributes holds 'red'"),
        ({"item_id": "z", "image": "http://a/b.jpg"}, "item 'z': image: uri 'http://a/b.jpg' is not supported"),
        ({"item_id": "z", "image": "../../etc/passwd"}, "item 'z': image: file '../../etc/passwd' is not inside"),
        ({"item_id": "ok", "title": "other"}, "item 'ok' was described otherwise before"),
    ],
)
def test_broken_item_fails_and_the_others_go_on(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = write(
        tmp_path / "i.jsonl", [{"item_id": "ok", "title": "t"}, record, {"item_id": "later"}, {"item_id": "later"}]
    )
    with pytest.raises(UserError) as raised:
        read_items(path)
    assert f"i.jsonl: line 2: {message}" in str(raised.value)
    failures: list[ItemError] = []
    assert list(read_items(path, strict=False, on_failure=failures.append)) == ["ok", "later"]
    assert [failure.message for failure in failures] == [str(raised.value).removesuffix(".")]


def test_broken_rows_of_a_tsv_are_named(tmp_path: Path) -> None:
    path = tmp_path / "items.tsv"
    path.write_bytes(b"1\ta\n\xff\t\t\t\t\n3\tt\t\t\tc\n")
    failures: list[ItemError] = []
    assert read_items(path, strict=False, on_failure=failures.append) == {"3": Item("3", "t", "c")}
    assert "line 1: 2 cells between tabs, not 5" in failures[0].message
    assert "line 2: not valid UTF-8" in failures[1].message


@pytest.mark.parametrize("name", ["none.jsonl", "none.tsv", "no folder/none.csv"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_items(tmp_path / name)
    if not name.endswith("tsv"):
        with pytest.raises(UserError, match="there is no such file"):
            read_pairs(tmp_path / name)


def test_content_hash_is_of_what_a_model_reads() -> None:
    item = Item("1", "t", attributes={"k": ("a", "b")})
    assert item.content_hash() == Item("2", "t", attributes={"k": ("a", "b")}).content_hash()
    others = [
        Item("1", "t", attributes={"k": ("a,b",)}),
        Item("1", "t", attributes={"k": ("a",)}),
        Item("1", "", "t", attributes={"k": ("a", "b")}),
        Item("1", "t", attributes={"k": ("a", "b")}, picture="file:///p"),
        Item("1", "t\ud800"),
    ]
    assert len({other.content_hash() for other in [item, *others]}) == 6


# Pairs


KNOWN = {name: Item(name, title=f"title {name}") for name in "abcd"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz"])
@pytest.mark.parametrize(
    "keys",
    [("src_item_id", "tgt_item_id", "item_label"), ("left_item_id", "right_item_id", "label")],
)
def test_pairs_of_ids(tmp_path: Path, suffix: str, keys: tuple[str, str, str]) -> None:
    rows = [("b", "a", "1"), ("c", "a", "0"), ("c", "d", None)]
    path = write(tmp_path / f"p{suffix}", [dict(zip(keys, row, strict=True)) for row in rows])
    table = read_pairs(path, KNOWN)
    assert pairs(table) == [("b", "a", 1), ("c", "a", 0), ("c", "d", -1)]
    assert [item.title for item in table.items] == ["title b", "title a", "title c", "title d"]
    assert (table.left.dtype, table.right.dtype, table.labels.dtype) == (np.int32, np.int32, np.int8)
    assert read_pairs(path).items == tuple(Item(name) for name in "bacd")


def test_pair_of_known_items_may_say_more(tmp_path: Path) -> None:
    row = {"left_item_id": "a", "right_item_id": "b", "left_title": "shown to people", "right_title": "x", "label": 1}
    path = write(tmp_path / "p.csv", [row])
    assert read_pairs(path, KNOWN).items == (KNOWN["a"], KNOWN["b"])
    assert [item.title for item in read_pairs(path).items] == ["shown to people", "x"]


@pytest.mark.parametrize(
    ("value", "label"),
    [(1, 1), (0, 0), ("1", 1), (" 0 ", 0), (True, 1), (False, 0), (1.0, 1), ("true", 1), ("", -1), (None, -1)],
)
def test_labels(tmp_path: Path, value: object, label: int) -> None:
    path = write(tmp_path / "p.jsonl", [{"src_item_id": "a", "tgt_item_id": "b", "label": value}])
    assert pairs(read_pairs(path)) == [("a", "b", label)]


def rows_of(*rows: tuple[str, str, Any]) -> list[dict[str, Any]]:
    return [{"left_item_id": left, "right_item_id": right, "label": label} for left, right, label in rows]


def test_duplicates_and_both_orders_are_one_pair(tmp_path: Path) -> None:
    rows = rows_of(("d", "c", 0), ("b", "a", None), ("a", "b", 1), ("c", "d", 0), ("b", "a", 1), ("a", "c", None))
    table = read_pairs(write(tmp_path / "p.jsonl", rows), KNOWN)
    assert pairs(table) == [("d", "c", 0), ("b", "a", 1), ("a", "c", -1)]


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        (("a", "x", 1), "unknown_item", "line 2: item 'x' is unknown"),
        (("a", "a", 1), "same_item", "line 2: item 'a' is paired with itself"),
        (("a", "b", 2), "broken_record", "line 2: label is '2'; write 0 or 1"),
        (("a", "", 1), "broken_record", "line 2: no right item; give right_item_id"),
        (("b", "c", 0), "contradiction", "the pair 'c', 'b' is labelled 1 in line 1 and 0 in line 2"),
    ],
)
def test_pair_that_cannot_be_used(tmp_path: Path, row: tuple[str, str, Any], code: str, message: str) -> None:
    path = write(tmp_path / "p.jsonl", rows_of(("c", "b", 1), row, ("a", "d", 1)))
    with pytest.raises(UserError) as raised:
        read_pairs(path, KNOWN)
    assert message in str(raised.value)
    failures: list[ItemError] = []
    table = read_pairs(path, KNOWN, strict=False, on_failure=failures.append)
    assert ("a", "d", 1) in pairs(table)
    assert len(table) == (1 if code == "contradiction" else 2)
    assert [(failure.code, message in failure.message) for failure in failures] == [(code, True)]


def test_each_contradiction_is_told_of(tmp_path: Path) -> None:
    rows = rows_of(("a", "b", 1), ("c", "d", 1), ("a", "c", 0), ("b", "a", 0), ("d", "c", 0), ("a", "b", 0))
    failures: list[ItemError] = []
    table = read_pairs(write(tmp_path / "p.jsonl", rows), KNOWN, strict=False, on_failure=failures.append)
    assert pairs(table) == [("a", "c", 0)]
    assert [failure.message.partition(": ")[2].partition(";")[0] for failure in failures] == [
        "the pair 'a', 'b' is labelled 1 in line 1 and 0 in line 4",
        "the pair 'c', 'd' is labelled 1 in line 2 and 0 in line 5",
    ]


LEFT = {"title": "Lamp", "description": "d", "brand": "", "price": "9", "currency": "EUR", "cluster_id": "5"}
RIGHT = {"title": "Lampe", "description": "", "brand": "Ikea", "price": "", "spec": "E27"}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_items_written_out(tmp_path: Path, suffix: str) -> None:
    table = read_pairs(write(tmp_path / f"p{suffix}", [{"left": LEFT, "right": RIGHT, "label": 1, "split": "test"}]))
    left, right = table.items
    assert (left.title, left.description, left.price, left.attributes) == ("Lamp", "d", "9", {"currency": ("EUR",)})
    assert (right.title, right.brand, right.attributes) == ("Lampe", "Ikea", {})
    assert left.item_id == left.content_hash().hex()[:32]


def test_items_written_out_in_columns(tmp_path: Path) -> None:
    row = {f"left_{key}": value for key, value in LEFT.items()} | {
        f"right_{key}": value for key, value in RIGHT.items()
    }
    flat = read_pairs(write(tmp_path / "p.csv", [row | {"label": "0"}]))
    nested = read_pairs(write(tmp_path / "p.jsonl", [{"left": LEFT, "right": RIGHT, "label": 0}]))
    assert flat.items == nested.items
    assert flat.fingerprint() == nested.fingerprint()


def test_offers_that_look_alike_share_a_text_but_no_label(tmp_path: Path) -> None:
    rows = [
        {"left": LEFT, "right": RIGHT, "label": 1},
        {"left": LEFT, "right": RIGHT, "label": 0},
        {"left": RIGHT, "right": RIGHT, "label": 1},
    ]
    table = read_pairs(write(tmp_path / "p.jsonl", rows))
    assert table.labels.tolist() == [1, 0, 1]
    assert len(table.items) == 3
    assert table.left.tolist() == [0, 0, 1]
    assert table.right.tolist() == [1, 1, 2]
    assert table.items[2].item_id == f"{table.items[1].item_id}#2"
    assert table.items[2].content_hash() == table.items[1].content_hash()


def test_items_written_out_with_ids_are_checked(tmp_path: Path) -> None:
    left, right = {"item_id": "l", "title": "t"}, {"item_id": "r"}
    path = write(tmp_path / "p.jsonl", [{"left": left, "right": right, "label": 1}, {"left": right, "right": left}])
    assert pairs(read_pairs(path)) == [("l", "r", 1)]
    write(path, [{"left": left, "right": right}, {"left": left | {"title": "u"}, "right": {"item_id": "q"}}])
    with pytest.raises(UserError, match="line 2: item 'l' was described otherwise before"):
        read_pairs(path)


def test_broken_item_written_out_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"left": {"item_id": "l", "item_pvs": "a#:#1#;#b"}, "right": RIGHT}])
    with pytest.raises(UserError, match="line 1: left item 'l': attribute 2 is broken: 'b'"):
        read_pairs(path)


def test_pair_key_is_in_code_point_order() -> None:
    assert pair_key("a", "B") == pair_key("B", "a") == ("B", "a")
    with pytest.raises(ItemError, match="itself"):
        pair_key("a", "a")


# Tables


def table(rows: Sequence[tuple[int, int, int]], items: str = "abcd") -> PairTable:
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    left, right, labels = columns[0].astype(np.int32), columns[1].astype(np.int32), columns[2].astype(np.int8)
    return PairTable(tuple(KNOWN[name] for name in items), left, right, labels)


def test_selected_pairs() -> None:
    whole = table([(0, 1, 1), (2, 1, 0), (3, 2, -1)])
    by_rows, by_mask = whole.select(np.array([2, 0])), whole.select(whole.labels >= 0)
    assert pairs(by_rows) == [("d", "c", -1), ("a", "b", 1)]
    assert pairs(by_mask) == [("a", "b", 1), ("c", "b", 0)]
    assert by_mask.items is whole.items
    assert by_mask.item_rows().tolist() == [0, 1, 2]
    assert by_mask.used_items() == [KNOWN[name] for name in "abc"]


def test_fingerprint_is_of_the_pairs_and_what_is_in_them() -> None:
    one = table([(0, 1, 1)])
    assert one.fingerprint() == table([(0, 1, 1)], "ab").fingerprint()
    others = [table([(0, 1, 0)]), table([(1, 0, 1)]), table([(0, 1, 1)], "ac"), table([(0, 1, 1), (1, 2, 0)])]
    assert len({each.fingerprint() for each in [one, *others]}) == 5
    a, b = (hashlib.sha256(name.encode()).digest() + KNOWN[name].content_hash() for name in "ab")
    expected = (2).to_bytes(8, "little") + a + b + bytes(4) + bytes([1, 0, 0, 0]) + bytes([1])
    assert one.fingerprint() == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_1_and_1_0_are_two_ids_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    items = read_items(write(tmp_path / f"items{suffix}", [{"item_id": "1", "title": "a"}, {"item_id": "1.0"}]))
    assert list(items) == ["1", "1.0"]
    table = read_pairs(write(tmp_path / f"pairs{suffix}", [{"left_id": "1.0", "right_id": 1, "label": 1}]), items)
    assert pairs(table) == [("1.0", "1", 1)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_number_with_a_fraction_is_no_id(tmp_path: Path, suffix: str) -> None:
    """A table with a gap in its column of ids makes 1.0 of every 1."""
    items = write(tmp_path / f"items{suffix}", [{"item_id": 1.0, "title": "a"}])
    with pytest.raises(UserError, match=r"line 1: item_id is the number 1.0; write ids as text or as whole numbers"):
        read_items(items)
    several = write(tmp_path / f"pairs{suffix}", [{"left_id": "2", "right_id": 1.0}])
    with pytest.raises(UserError, match=r"line 1: right_id is the number 1.0"):
        read_pairs(several)
