"""Pictures with a class each: folders, files, what is wrong in them, and how they are parted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.fashion.thumbnails.data import Columns, LabelledPictures, read_labelled
from shopvision.fashion.thumbnails.splits import contradictory, fold_by_product, shared_with, split_by_product
from tests.unit.fashion.thumbnails_world import folders, table


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    folders(tmp_path / "shop", each=2)
    (tmp_path / "shop" / ".cache" / "x").mkdir(parents=True)
    (tmp_path / "shop" / "bag" / ".hidden").touch()
    (tmp_path / "shop" / "bag" / "old stock").mkdir()
    (tmp_path / "shop" / "bag" / "old stock" / "a b.png").touch()
    data = read_labelled(tmp_path / "shop")
    assert data.classes == ("bag", "dress", "shoes")
    assert data.by_class() == {"bag": 3, "dress": 2, "shoes": 2}
    assert data.names[:3] == ("bag/0.png", "bag/1.png", "bag/old stock/a b.png")
    assert data.uris[2] == (tmp_path / "shop" / "bag" / "old stock" / "a b.png").as_uri()
    assert read_labelled(tmp_path / "shop", classes=("shoes", "dress", "bag")).labels[0] == 2


def test_files(tmp_path: Path) -> None:
    rows = [
        {"picture": "a.png", "label": "bag", "product_id": "7"},
        {"picture": "https://shop.example/b.png", "label": "dress", "product_id": ""},
    ]
    data = read_labelled(table(tmp_path / "shop.csv", rows))
    assert data.uris == ((tmp_path / "a.png").as_uri(), "https://shop.example/b.png")
    assert (data.products, data.labels.tolist()) == (("7", ""), [0, 1])
    lines = [{"file": "a.png", "kind": 3, "style": 9}, {"file": "b.png", "kind": 4}]
    (tmp_path / "shop.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = Columns("file", "kind", "style")
    data = read_labelled(tmp_path / "shop.jsonl", images="s3://shop/pictures", columns=columns)
    assert (data.uris[0], data.classes, data.products) == ("s3://shop/pictures/a.png", ("3", "4"), ("9", ""))


ROW = {"picture": "a.png", "label": "bag"}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [{"file": "a.png", "label": "bag"}],
            Columns(),
            "line 2 has no 'picture', only file, label: fill it in, or name",
        ),
        ([{"picture": "a.png", "kind": "bag"}], Columns(), "line 2 has no 'label', only picture, kind: fill it in"),
        ([ROW], Columns(product="style"), "has no product under 'style' in any row"),
        ([ROW, ROW | {"label": " "}], Columns(), "line 3 has no 'label'"),
        ([ROW | {"picture": ""}], Columns(), "line 2 has no 'picture'"),
        ([ROW | {"picture": "../a.png"}], Columns(), "line 2: picture: file '../a.png' is not inside"),
        (
            [ROW, ROW | {"label": "kilt"}],
            Columns(),
            "a.png is of the class 'kilt', which the classifier has not: bag, hat",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(
    rows: list[dict[str, str]], columns: Columns, message: str, tmp_path: Path
) -> None:
    path = table(tmp_path / "shop.csv", rows)
    with pytest.raises(UserError, match=message):
        read_labelled(path, columns=columns, classes=("bag", "hat"))


def test_what_is_empty_or_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pictures: put them into a folder for each class"):
        read_labelled(tmp_path)
    (tmp_path / "bag").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        read_labelled(tmp_path)
    with pytest.raises(UserError, match="leave out images"):
        read_labelled(tmp_path, images="elsewhere")
    with pytest.raises(UserError, match=r"none\.csv"):
        read_labelled(tmp_path / "none.csv")


def pictures(labels: list[int], products: list[str] | None = None) -> LabelledPictures:
    names = tuple(f"{number}.png" for number in range(len(labels)))
    return LabelledPictures(
        classes=("bag", "dress"),
        names=names,
        uris=names,
        labels=np.array(labels),
        products=tuple(products or [""] * len(labels)),
    )


def test_what_belongs_together_is_on_one_side() -> None:
    # 0-1 share a product, 1-2 their bytes, 2-3 another product.
    data = pictures([0] * 12 + [1] * 8, ["a", "a", "b", "b", *[""] * 16])
    contents = np.array([0, 1, 1, 3, *range(4, 20)])
    for seed in range(6):
        train, valid = split_by_product(data, contents, 0.25, seed)
        assert sorted([*train, *valid]) == list(range(20))
        assert len({row in set(valid.tolist()) for row in range(4)}) == 1
        assert [(data.labels[valid] == label).sum() for label in (0, 1)] == [3, 2]
    again = split_by_product(data.rows(np.arange(20)[::-1]), contents[::-1], 0.25, 5)
    assert {19 - row for row in again[1].tolist()} == set(valid.tolist())


def test_a_class_of_two_large_products_is_validated_on_the_smaller_one() -> None:
    data = pictures([0] * 10 + [1] * 7, [*"aaaaaabbbb", *"ccccccc"])
    _, valid = split_by_product(data, np.arange(17), 0.1, 1)
    assert valid.tolist() == [6, 7, 8, 9]
    with pytest.raises(UserError, match="5 pictures are of 1 products and cannot be parted"):
        split_by_product(pictures([0] * 5, ["a"] * 5), np.arange(5), 0.2, 1)


def test_identical_bytes_of_two_classes_are_found() -> None:
    data = pictures([0, 1, 1, 0])
    assert contradictory(data, np.array([5, 5, 6, 7])).tolist() == [True, True, False, False]


def test_what_validation_shares_with_training_is_named() -> None:
    data = pictures([0, 1, 1, 0], ["a", "", "", "a"])
    rows = np.array([2, 3])
    assert shared_with(data, np.arange(4), rows) == "0.png"
    assert shared_with(pictures([0, 1, 1, 0]), np.array([0, 1, 1, 2]), rows) == "1.png"
    assert shared_with(pictures([0, 1, 1, 0]), np.arange(4), rows) is None


def test_folds_hold_every_class_and_keep_products_whole() -> None:
    data = pictures([0] * 12 + [1] * 8, ["a", "a", "b", "b", *[""] * 16])
    contents = np.array([0, 1, 1, 3, *range(4, 20)])
    folds = fold_by_product(data, contents, 4, 1)
    assert len(set(folds[:4].tolist())) == 1
    assert all({*folds[data.labels == label].tolist()} == {0, 1, 2, 3} for label in (0, 1))
    assert (fold_by_product(data.rows(np.arange(20)[::-1]), contents[::-1], 4, 1)[::-1] == folds).all()
