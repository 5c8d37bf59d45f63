"""Files: every format and its damage, column mappings, and the Vendure converter."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from shopvision.catalogue.column_mapping import Mapping
from shopvision.catalogue.lines_by_key import LinesByKey
from shopvision.catalogue.record_schema import Item
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.catalogue.source_lines import MAX_LINE_BYTES
from shopvision.catalogue.vendure import read_vendure
from shopvision.errors import UserError


def read(path: Path, file_format: str | None = None) -> list[tuple[int, Any]]:
    with open_source(str(path), file_format) as source:
        rows = [(line, str(record) if isinstance(record, RecordError) else record) for line, record in source.records]
        assert source.fraction_read() == 1.0
    return rows


def test_jsonl_skips_blank_lines_and_marks_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a": NaN}\n{"a": "\\u0000"}\n{"a": 2}')
    rows = read(path)
    assert [line for line, _ in rows] == [1, 3, 4, 5, 6, 7, 8]
    assert (rows[0][1], rows[-1][1]) == ({"a": 1}, {"a": 2})
    assert "not JSON" in rows[1][1]
    assert "not a JSON object" in rows[2][1]
    assert rows[3][1] == "not valid UTF-8; save the file as UTF-8"
    assert "not JSON" in rows[4][1]
    assert rows[5][1] == "a: a NUL character; remove it from the text"


def test_an_endless_line_costs_its_own_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}\n{"a": 3}\n')
    rows = read(path)
    assert [line for line, _ in rows] == [1, 2, 3]
    assert rows[1][1] == "a line of more than 4 MiB; one line holds one record"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_numbers_the_first_line_of_each_record(tmp_path: Path, delimiter: str) -> None:
    text = 'id,name,note\n1,"two\nlines",\n 2 ,ab\xe9,x\n\n3,a,b,c\n4,"é",y\n'.replace(",", delimiter)
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode().replace("ab\xe9".encode(), b"ab\xe9"))
    assert read(path) == [
        (2, {"id": "1", "name": "two\nlines"}),
        (4, "name: not valid UTF-8; save the file as UTF-8"),
        (6, "4 cells under 3 columns; quote cells that hold the separator"),
        (7, {"id": "4", "name": "é", "note": "y"}),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_lines_end_in_three_ways(tmp_path: Path, end: str, packed: bool) -> None:
    content = f'id,name{end}1,"two{end}lines"{end}2,x{end}'.encode()
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert read(path) == [(2, {"id": "1", "name": f"two{end}lines"}), (4, {"id": "2", "name": "x"})]


def test_cr_lines_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = ["x" * length for length in (8_191, 8_192, 20_000, 1)]
    path.write_text("id,name\r" + "\r".join(f"{number},{name}" for number, name in enumerate(names)), encoding="utf-8")
    assert [record["name"] for _, record in read(path)] == names
    path.write_text("id\r" + "x" * (2 * MAX_LINE_BYTES), encoding="utf-8")
    with pytest.raises(UserError, match="line 2 is longer than 4 MiB"):
        read(path)


def test_a_stray_cr_makes_no_row_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,name\n1,a\rb,c\n2,d\n")
    (line, message), good = read(path)
    assert (line, "new-line character" in message, good) == (2, True, (3, {"id": "2", "name": "d"}))


def test_an_open_quote_at_the_end_is_one_refused_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,name,file\n1,a,b\n2,"21 inch monitor,c\n3,d,e\n4,f,g\n', encoding="utf-8")
    assert read(path) == [
        (2, {"id": "1", "name": "a", "file": "b"}),
        (
            3,
            (
                "a quote that opens here is never closed, so the 2 lines after it were not read; close it, or double "
                "it where it means inches"
            ),
        ),
    ]


def test_an_open_quote_takes_no_row_into_its_own(tmp_path: Path) -> None:
    """Two rows would be one, with the id of the first and the file of the second."""
    path = tmp_path / "a.csv"
    path.write_text('id,name,file\n1,"21 inch,a\n2,"22 inch",b\n3,c,d\n', encoding="utf-8")
    (line, message), good = read(path)
    assert (line, "check the quotes" in message, good) == (2, True, (4, {"id": "3", "name": "c", "file": "d"}))


def test_blanks_behind_closing_quotes_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,name\n"1"  ,"a ""b"""\t\n"2" x,c\n', encoding="utf-8")
    good, (line, message) = read(path)
    assert good == (2, {"id": "1", "name": 'a "b"'})
    assert (line, "check the quotes" in message) == (3, True)


@pytest.mark.parametrize(("end", "is_cut"), [("", True), ("\n", False)])
def test_a_short_row_at_the_very_end_may_have_been_cut(tmp_path: Path, end: str, is_cut: bool) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,name,file\n1,a\n12{end}", encoding="utf-8")
    first, (line, last) = read(path)
    assert (first, line) == ((2, {"id": "1", "name": "a"}), 3)
    assert last == (
        "the file ends in this row, after 1 of 3 cells; send the whole file, or end the row with a line break"
        if is_cut
        else {"id": "12"}
    )


def test_a_header_with_an_open_quote_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,"name\n1,a\n', encoding="utf-8")
    with pytest.raises(UserError, match="the header line cannot be read"):
        read(tmp_path / "a.csv")


def test_parquet_values_are_as_they_were_written(tmp_path: Path) -> None:
    nanoseconds = pa.timestamp("ns", "UTC")
    nested = pa.list_(pa.struct([("at", nanoseconds), ("x", pa.float64())]))
    moment = 1_700_000_000_123_456_789
    table = pa.table(
        {
            "id": pa.array([1.0, 2.5, None], pa.float64()),
            "price": pa.array([19.9, 0.1, float("nan")], pa.float32()),
            "seen": pa.array([moment, None, -1], nanoseconds),
            "deep": pa.array([[{"at": moment, "x": float("nan")}], [], None], nested),
            "wait": pa.array([1_001, None, None], pa.duration("ns")),
            "noon": pa.array([43_200_000_000_001, None, None], pa.time64("ns")),
        }
    )  # fmt: skip
    parquet.write_table(table, tmp_path / "a.parquet")
    first, second, third = (record for _, record in read(tmp_path / "a.parquet"))
    at = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert first == {
        "id": 1.0, "price": 19.9, "seen": at, "deep": [{"at": at, "x": None}], "wait": timedelta(microseconds=1),
        "noon": time(12),
    }  # fmt: skip
    assert second == {"id": 2.5, "price": 0.1, "deep": []}
    assert list(third) == ["seen"]


def test_a_parquet_value_that_nobody_can_read_costs_its_own_row(tmp_path: Path) -> None:
    seen = pa.array([0, 2**62], pa.timestamp("us"))
    parquet.write_table(pa.table({"id": ["a", "b"], "seen": seen}), tmp_path / "a.parquet")
    good, (row, message) = read(tmp_path / "a.parquet")
    assert (good[1]["id"], row) == ("a", 2)
    assert message.startswith("seen: a timestamp[us] that cannot be read")


def test_parquet_columns_of_one_name_are_named(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="the columns id occur twice"):
        read(tmp_path / "a.parquet")


def test_deep_nesting_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + '}\n{"a": 1}\n', encoding="utf-8")
    (line, message), good = read(path)
    assert (line, message.startswith("not JSON (recursion limit"), good) == (1, True, (2, {"a": 1}))


def test_gzip_and_parquet_hold_the_same_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": "x"}\n{"a": "y"}\n', mtime=0))
    parquet.write_table(pa.table({"a": ["x", "y"], "b": [float("nan"), None]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.jsonl.gz") == read(tmp_path / "a.parquet") == [(1, {"a": "x"}), (2, {"a": "y"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "unknown format"),
        ("a", b"", "unknown format"),
        ("a.gz", b"", "unknown format"),
        ("a.json", b"", "unknown format"),
        ("a.jsonl", b'[{"a": 1}]', "a JSON array. Write one object a line"),
        ("a.jsonl", "{}".encode("utf-16"), "the file is UTF-16"),
        ("a.csv", "a,b".encode("utf-16"), "the file is UTF-16"),
        ("a.csv", b"", "no header line"),
        ("a.csv", b"id,id\n1,2\n", "the columns id occur twice"),
        ("a.parquet", b"nothing", "not a Parquet file"),
        ("a.jsonl.gz", b"plain", "cannot be read beyond line 0"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], "The rows before it may be in"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read(tmp_path / "a.jsonl")


MAP = """
[columns]
item_id = "sku"
images = ["photo", "photo_2"]
attributes = ["colour", "size"]
category = "group"
[constants]
currency = "EUR"
[separators]
images = ";"
category = " > "
[images]
prefix = "https://cdn.example/"
"""


def load(tmp_path: Path, text: str) -> Mapping:
    (tmp_path / "map.toml").write_text(text, encoding="utf-8")
    return Mapping.load(tmp_path / "map.toml", Item)


def test_a_mapping_gathers_splits_and_prefixes(tmp_path: Path) -> None:
    record = {
        "sku": "1",
        "photo": "a.jpg; b.jpg",
        "photo_2": "c.jpg",
        "colour": "red",
        "size": "",
        "group": "A > B",
        "x": "y",
    }
    assert load(tmp_path, MAP).apply(record) == {
        "item_id": "1",
        "images": [{"uri": f"https://cdn.example/{name}.jpg"} for name in "abc"],
        "attributes": [{"key": "colour", "value": "red"}],
        "category": ["A", "B"],
        "currency": "EUR",
        "x": "y",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[columns]\ntitel = 'name'", "unknown field titel; did you mean title?"),
        ("[constants]\nqqq = 1", "unknown field qqq; fields are item_id"),
        ("[columns]\ntitle = ['a', 'b']", "title holds one value"),
        ("[separators]\nprice = ';'", "price holds one value"),
        ("[colums]\na = 'b'", "colums is unknown or of the wrong form"),
        ("[columns", "not TOML"),
    ],
)
def test_a_wrong_mapping_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        load(tmp_path, text)


VENDURE = """\
name   ,slug  ,description,assets     ,facets                  ,optionGroups,optionValues,sku,price
Laptop ,laptop,"Fast, new",a.jpg|b.jpg,category:A|category:B|brand:Apple|color:gray,"screen|RAM","13|8GB",L1,1299.00
       ,      ,           ,           ,                        ,            ,"15|8GB"    ,L2 ,1399.00
Tripod ,tripod,Stands     ,c.jpg      ,category:Photo          ,            ,            ,T1 ,14.98
"""


def test_vendure_products_take_in_their_variants(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text(VENDURE, encoding="utf-8")
    laptop, tripod = read_vendure(path)
    assert (laptop["item_id"], laptop["title"], laptop["description"]) == ("laptop", "Laptop", "Fast, new")
    assert (laptop["category"], laptop["brand"], laptop["price"]) == (["A", "B"], "Apple", "1299.00")
    assert laptop["images"] == [{"file": "a.jpg"}, {"file": "b.jpg"}]
    assert laptop["attributes"] == [{"key": "color", "value": "gray"}]
    assert laptop["variants"][1] == {"sku": "L2", "price": "1399.00", "options": {"screen": "15", "RAM": "8GB"}}
    assert (tripod["brand"], len(tripod["variants"])) == (None, 1)
    path.write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="no product file of Vendure, the columns assets"):
        list(read_vendure(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Stands     ", '"Stands    ', "products.csv: line 4: a quote that opens here is never closed"),
        ("Stands     ", "Stands, and", "products.csv: line 4: 10 cells under 9 columns"),
    ],
)
def test_a_broken_row_of_a_vendure_file_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "products.csv"
    path.write_text(VENDURE.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        list(read_vendure(path))


def test_a_vendure_file_as_other_programs_write_it(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_bytes(b"\xef\xbb\xbf" + VENDURE.replace("\n", "\r").encode())
    assert [product["item_id"] for product in read_vendure(path)] == ["laptop", "tripod"]


def test_keys_remember_the_first_line() -> None:
    seen = LinesByKey()
    assert seen.lines(["a"]) == [0]
    seen.add(["c", "a"], [1, 2])
    seen.add(["b"], [3])
    assert seen.lines(["a", "b", "c", "d"]) == [2, 3, 1, 0]
    assert len(seen) == 3
