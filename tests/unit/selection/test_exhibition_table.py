"""Reading exhibition tables: columns, formats, canonical order, what is dropped, and every mistake's one line."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from shopvision.errors import UserError
from shopvision.selection.clik.data import RankingData, load_column_map, read_table
from shopvision.selection.topic import Topic
from worker.cli.data import app

EXHIBITIONS = {
    "000001": {
        "exhibit_name": "Summer, dresses", "exhibit_page_title": "Light\nand cool", "exhibit_startdate": "2021-08-05",
        "exhibit_cat1": "Fashion", "exhibit_cat2": "Women", "exhibit_kwds": "dress,linen",
    },
    "000002": {
        "exhibit_name": "힐과 힙", "exhibit_page_title": "", "exhibit_startdate": "",
        "exhibit_cat1": "Shoes", "exhibit_cat2": "", "exhibit_kwds": "",
    },
}  # fmt: skip
PRODUCT = {
    "prod_name": "Linen dress", "prod_text": "white", "prod_opendate": "2021-06-01", "prod_cat1": "Fashion",
    "prod_cat2": "Women", "prod_cat3": "Dresses", "prod_cat4": "Long", "prod_page_title": "linen,long",
}  # fmt: skip
LABELS = [("000001", "11", 0.5), ("000001", "12", 0.0), ("000002", "11", 0.25), ("000001", "09", 0.5)]


def rows(labels: list[tuple[str, str, Any]] = LABELS) -> list[dict[str, Any]]:
    return [
        {"id": f"{product}-{exhibition}", "prod_id": product, "exhibit_id": exhibition, "ctr": label}
        | EXHIBITIONS[exhibition] | PRODUCT | {"prod_name": f"Dress {product}"}
        for exhibition, product, label in labels
    ]  # fmt: skip


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table[0])
    writer.writeheader()
    writer.writerows(table)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def pictures(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    return str(folder)


def read(path: Path, **options: Any) -> RankingData:
    return read_table(path, **{"label": "ctr", "look_for_pictures": False, **options})


def test_topics_products_and_labels_in_canonical_order(tmp_path: Path) -> None:
    data = read(write(tmp_path / "t.csv", rows()))
    assert list(data.products.ids) == ["09", "11", "12"]
    first, second = data.exhibitions
    assert (first.exhibition_id, second.exhibition_id) == ("000001", "000002")
    assert first.topic == Topic(
        "Summer, dresses", desc="Light\nand cool", date="2021-08-05", cat1="Fashion", cat2="Women", kwds="dress,linen"
    )
    assert (first.category, second.category) == ("Women", "Shoes")  # cat1 where there is no cat2
    assert (first.products.tolist(), first.labels.tolist()) == ([0, 1, 2], [0.5, 0.5, 0.0])  # ties by product id
    assert (first.products.dtype, first.labels.dtype) == (np.int32, np.float32)
    assert (second.products.tolist(), second.labels.tolist()) == ([1], [0.25])
    assert data.products.topic(1) == Topic(
        "Dress 11", "white", "2021-06-01", "Fashion", "Women", "Dresses", "Long", "linen,long"
    )
    assert data.products.image(2) == (tmp_path / "12.jpg").as_uri()
    assert data.rows == 4


def test_formats_older_names_and_order_of_rows_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows()
    expected = read(write(tmp_path / "t.csv", table)).fingerprint()
    assert read(write(tmp_path / "t.csv.gz", table)).fingerprint() == expected
    older = [{name.replace("exhibit_", "plan_"): value for name, value in row.items()} for row in table]
    assert read(write(tmp_path / "older.csv", older)).fingerprint() == expected
    shuffled = random.Random(3).sample(table, len(table))
    assert read(write(tmp_path / "shuffled.csv", shuffled)).fingerprint() == expected
    parquet.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet")
    monkeypatch.setattr(
        "shopvision.selection.clik.exhibition_table.PARQUET_BATCH_ROWS", 1
    )  # products and topics across batches
    assert read(tmp_path / "t.parquet").fingerprint() == expected
    table[0]["ctr"] = 0.4
    assert read(write(tmp_path / "other.csv", table)).fingerprint() != expected


def test_parquet_with_types_of_its_own(tmp_path: Path) -> None:
    table = rows()
    for row in table:
        row.update(prod_id=int(row["prod_id"]), prod_review_cnt=int(row["ctr"] * 100), exhibit_kwds=["dress", "linen"])
        row.update(exhibit_startdate=dt.date(2021, 8, 5), exhibit_name=unicodedata.normalize("NFD", "힐"))
        row["exhibit_page_title"] = None
    parquet.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet", label="prod_review_cnt")
    topic = data.exhibitions[0].topic
    assert topic == Topic("힐", date="2021-08-05", cat1="Fashion", cat2="Women", kwds="dress,linen")
    assert data.exhibitions[0].labels.tolist() == [50, 50, 0]
    assert list(data.products.ids) == ["11", "12", "9"]


def test_foreign_columns_through_a_mapping_file(tmp_path: Path) -> None:
    table = [{"promo" if name == "exhibit_id" else name: value for name, value in row.items()} for row in rows()]
    mapping = tmp_path / "map.toml"
    mapping.write_text('[columns]\nexhibit_id = "promo"\n')
    file = write(tmp_path / "t.csv", table)
    data = read(file, columns=load_column_map(mapping))
    assert [exhibition.exhibition_id for exhibition in data.exhibitions] == ["000001", "000002"]
    with pytest.raises(UserError, match=r"exhibit_id is missing.*map it with --map.*There are: id, prod_id, promo"):
        read(file)
    with pytest.raises(UserError, match=r"exhibit_id is mapped to promos, which is not there\. Did you mean promo\?"):
        read(file, columns={"exhibit_id": "promos"})
    mapping.write_text('[columns]\nexhibit_idd = "promo"\n')
    with pytest.raises(UserError, match=r"unknown field exhibit_idd; did you mean exhibit_id\?"):
        load_column_map(mapping)
    mapping.write_text('[constants]\nexhibit_name = "x"\n')
    with pytest.raises(UserError, match=r"takes only \[columns\]"):
        load_column_map(mapping)


def test_missing_pictures_and_labels_are_dropped_everywhere(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", "09.jpg", "12.jpg")
    file = write(tmp_path / "t.csv", [*rows(), *rows([("000002", "09", "")])])
    data = read_table(file, label="ctr", images=images)
    assert list(data.products.ids) == ["09", "12"]
    assert [(e.exhibition_id, e.products.tolist()) for e in data.exhibitions] == [("000001", [0, 1])]
    assert [tuple(record.as_dict().values())[:5] for record in data.read_log] == [
        ("rows without a label", 2, 2, 5, 4),
        ("rows without a picture", 2, 1, 4, 2),
    ]
    assert (data.exhibitions[0].members, data.exhibitions[0].available) == (3, 2)
    with pytest.raises(UserError, match=r"All 3 pictures are missing, file://.*/09\.jpg first"):
        read_table(file, label="ctr", images=pictures(tmp_path / "empty"))


def test_pictures_named_by_a_column(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", "a 1.jpg", "12.jpg")
    named = {"11": "a 1.jpg", "12": "", "09": "s3://bucket/09.jpg"}
    table = [{**row, "image": named[row["prod_id"]]} for row in rows()]
    data = read_table(write(tmp_path / "t.csv", table), label="ctr", images=images)
    folder = (tmp_path / "images").as_uri()
    assert [data.products.image(i) for i in range(3)] == [
        "s3://bucket/09.jpg",
        f"{folder}/a%201.jpg",
        f"{folder}/12.jpg",
    ]
    table[0]["image"] = "../11.jpg"
    with pytest.raises(UserError, match=r"Product 11: file '\.\./11\.jpg' is not inside the picture folder"):
        read_table(write(tmp_path / "t.csv", table), label="ctr", images=images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([{"ctr": 0}], r"ctr: every label is zero or absent.*Choose another label column"),
        ([{"ctr": ""}], r"ctr: every label is zero or absent"),
        ([{}, {"ctr": -1}], r"1 labels are negative or infinite, -1 of product 12 in exhibition 000001"),
        ([{}, {"ctr": "inf"}], r"1 labels are negative or infinite, inf of product 12"),
        ([{}, {"ctr": "many"}], r"cannot be read beyond row 1 .*'many'"),
        ([{}, {"prod_id": "11"}], r"1 products are in one exhibition twice: 11 in 000001\. Keep one row of each"),
        ([{}, {"exhibit_cat2": "Men"}], r"000001 has two topics: exhibit_cat2 is 'Women' and 'Men'"),
        ([{}, {"prod_id": " "}], r"row 2 has no prod_id; every row needs it"),
        ([{"exhibit_startdate": "5.8.2021"}], r"exhibition 000001: The date '5\.8\.2021'.*YYYY-MM-DD"),
        ([{"prod_opendate": "2021-02-30"}], r"prod_opendate of product 11: '2021-02-30' is no day\. Write YYYY-MM-DD"),
    ],
)  # fmt: skip
def test_wrong_rows(tmp_path: Path, changed: list[dict[str, Any]], message: str) -> None:
    table = rows(LABELS[: len(changed)])
    for row, change in zip(table, changed, strict=True):
        row.update(change)
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "t.csv", table))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "exhibit_id,prod_id,exhibit_name,ctr\n", r"there is a header but no row"),
        ("t.csv", "exhibit_id,prod_id,exhibit_name,ctr\n1,2\n", r"cannot be read beyond row 1 .*Expected 4 columns"),
        ("t.csv", "", r"no header line"),
        ("t.csv", "ctr,ctr\n", r"the columns ctr occur twice"),
        ("t.csv", b"\xff\xfee\0", r"the file is UTF-16"),
        ("t.csv", b"\xe9,ctr\n", r"header line is not valid UTF-8"),
        ("t.csv", b"exhibit_id,prod_id,exhibit_name,ctr\n1,2,\xff,1\n", r"cannot be read beyond row 1 .*UTF8"),
        ("t.csv", "exhibit_id,prod_id,exhibit_name,prod_review_cnt\n", r"no label column ctr\. There are: exhibit_id"),
        ("t.csv", "exhibit_id,prod_id,exhibit_name,ctrs\n", r"no label column ctr\. Did you mean ctrs\?"),
        ("t.csv", "exhibit_id,prod_id,exhibit_nmae,ctr\n", r"unknown column exhibit_nmae; did you mean exhibit_name\?"),
        ("t.csv", "exhibit_id,prod_id,exhibit_name,exhibit_kwd,ctr\n", r"exhibit_kwd; did you mean exhibit_kwds\?"),
        ("t.csv", "exhibit_id,exhibit_name,ctr\n", r"the column prod_id is missing"),
        ("t.csv.gz", "no gzip", r"cannot be read"),
        ("t.parquet", "no parquet", r"not a Parquet file"),
        ("t.xlsx", "", r"unknown format\. Name it \.csv"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_wrong_types_in_parquet(tmp_path: Path) -> None:
    table = [{**row, "prod_id": float(row["prod_id"])} for row in rows()]
    parquet.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"prod_id holds numbers with fractions\. Write ids as text"):
        read(tmp_path / "t.parquet")
    parquet.write_table(pa.Table.from_pylist(rows()), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"prod_name is not numeric"):
        read(tmp_path / "t.parquet", label="prod_name")


def test_describe_shows_table_and_rules(tmp_path: Path) -> None:
    labels = [(exhibition, f"{product:02d}", product % 3) for exhibition in EXHIBITIONS for product in range(12)]
    file = write(tmp_path / "t.csv", rows(labels))
    images = pictures(tmp_path / "images", *(f"{product:02d}.jpg" for product in range(9)))
    config = tmp_path / "clik.toml"
    config.write_text(
        "[train]\nepochs = 3\n[refine]\nmin_products = 3\ncandidates = 3\nmin_positive = 2\nfractions = [0.5, 0.5, 0]\n"
    )
    arguments = ["describe", str(file), "--images", images, "--config", str(config)]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "2 exhibitions, 9 products, 18 rows" in shown.stdout
    assert "24 -> 18" in shown.stdout
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert report["labels"]["zeros"] == pytest.approx(1 / 3)
    assert report["labels"]["mean"] == pytest.approx(1)
    assert report["categories"] == [
        {"category": "Shoes", "exhibitions": 1, "rows": 9}, {"category": "Women", "exhibitions": 1, "rows": 9},
    ]  # fmt: skip
    assert report["rules"][0]["rule"] == "rows without a picture"
    assert report["splits"]["train"]["exhibitions"] == 1
    assert report["splits"]["valid"] == {"exhibitions": 1, "products": 3, "rows": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], r"missing\.csv: there is no such file"),
        (["{file}", "--label", "sales"], r"there is no label column sales"),
        (["{file}", "--config", "{config}"], r"refine\.candidate is unknown"),
        (["{file}", "--images", "nowhere"], r"--images nowhere: there is no such folder"),
    ],
)
def test_describe_names_the_mistake(tmp_path: Path, arguments: list[str], message: str) -> None:
    file = write(tmp_path / "t.csv", rows())
    (tmp_path / "clik.toml").write_text("[refine]\ncandidate = 3\n")
    words = [word.format(file=file, config=tmp_path / "clik.toml") for word in arguments]
    result = CliRunner().invoke(app, ["describe", *words])
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=message):
        raise result.exception
