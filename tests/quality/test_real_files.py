"""Real catalogues and labelled pairs are read as they are; counts as the data's own description gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import normalised
from shopvision.catalogue.row_conversion import item_row, plan_row
from shopvision.items.item_files import read_items
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_splits import split_by_component

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "count", "positives"),
    [("abt_buy.test", 1914, 206), ("beer.valid", 91, 14), ("wdc_lspc_shoes.test", 1073, 293)],
)
def test_pairs(data: Path, name: str, count: int, positives: int) -> None:
    table = read_pairs(data / "er_product_pairs" / f"{name}.jsonl.gz")
    assert (len(table), int((table.labels == 1).sum())) == (count, positives)
    assert (table.left != table.right).all()


def test_pairs_can_be_split(data: Path) -> None:
    table = read_pairs(data / "er_product_pairs" / "beer.train.jsonl.gz")
    parts = split_by_component(table, {"train": 0.7, "valid": 0.3}, 0)
    train, valid = (set(part.item_rows().tolist()) for part in parts.values())
    assert not train & valid
    assert (parts["valid"].labels == 1).sum() == pytest.approx(12, abs=4)


def test_taobao_items(data: Path) -> None:
    items = read_items(data / "chinese_items" / "taobao_items_k3m_small_train.tsv")
    assert len(items) == 399
    assert len({item.category for item in items.values()}) == 271
    assert len({key for item in items.values() for key in item.attributes}) == 433
    assert sum(len(values) > 1 for item in items.values() for values in item.attributes.values()) > 55
    assert {item.picture.count("//img.alicdn.com/") for item in items.values()} == {1}


def test_catalogue_items(data: Path) -> None:
    items = read_items(data / "magento_luma" / "items.jsonl")
    assert len(items) == 466
    assert items["MH01-Black"].attributes["climate"] == ("All-weather", "Cool", "Indoor", "Spring", "Windy")
    assert items["MH01-Black"].picture == (data / "magento_luma/images/mh01-black_main.jpg").resolve().as_uri()


def test_catalogue_records(data: Path) -> None:
    folder = data / "magento_luma"
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [item_row(normalised(item), PictureRoot.parse(str(folder))) for item in items]
    assert len(rows) == 466
    assert rows[0].price == 52.0
    assert sorted(json.loads(rows[0].extra)) == ["colour", "file_colour", "flags", "style", "variants"]
    assert all(Path(uri.removeprefix("file://")).is_file() for item in rows for uri, _ in item.images)
    plans = [plan_row(json.loads(line)) for line in (folder / "plans.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (len(plans), len(plans[0].members)) == (19, 50)
