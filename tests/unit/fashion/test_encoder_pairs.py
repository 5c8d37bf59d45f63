"""Pairs of files and of items, what hangs together in a split, and which pairs make a step."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.fashion.encoding.pairs import Pair, PairData, Shown, pairs_of_file, pairs_of_items
from shopvision.fashion.encoding.searching import Search
from shopvision.fashion.encoding.splits import require_apart, split_pairs
from shopvision.fashion.encoding.views import View
from shopvision.training.pair_sampling import PairSampler
from shopvision.training.parting import components
from tests.unit.fashion.pairs_world import write_items, write_pairs


def pair(anchor: str, positive: str, product: str, *bound: str, category: str = "") -> Pair:
    keys = (f"product {product}", f"picture {anchor}", f"picture {positive}", *bound)
    return Pair(View(anchor), View(positive), product, category, keys)


def test_pairs_hang_together_by_product_post_and_picture_over_any_chain() -> None:
    given = [
        pair("a", "A", "1", "post x"),
        pair("b", "B", "2", "post y"),
        pair("c", "C", "3", "post x"),  # the post of the first
        pair("d", "B", "4"),  # the thumbnail of the second under another product
        pair("e", "E", "5"),
        pair("f", "F", "3"),  # the product of the third
    ]
    numbers = components([one.bound for one in given])
    assert numbers == [0, 1, 0, 1, 4, 0]


@pytest.mark.parametrize("seed", range(5))
def test_sides_share_nothing(seed: int, tmp_path: Path) -> None:
    data = PairData(
        tuple(pair(f"a{number}", f"p{number % 40}", str(number % 40), f"post {number // 3}") for number in range(60))
    )
    sides = split_pairs(data, (0.2, 0.1), seed)
    assert sum(len(side.pairs) for side in sides) == 60
    for one in range(3):
        for other in range(one):
            keys = [{key for row in sides[place].pairs for key in row.bound} for place in (one, other)]
            assert not keys[0] & keys[1]
    assert [side.pairs for side in split_pairs(data, (0.2, 0.1), seed)] == [side.pairs for side in sides]


def test_sides_do_not_depend_on_the_folder_of_the_pictures() -> None:
    def products(folder: str) -> list[list[str]]:
        pairs = (pair(f"{folder}/a{number}", f"{folder}/p{number}", str(number)) for number in range(40))
        return [[one.product for one in side.pairs] for side in split_pairs(PairData(tuple(pairs)), (0.25,), 3)]

    assert products("file:///shop/pictures") == products("file:///moved") == products("s3://bucket/x")


def test_what_cannot_be_parted_or_is_on_both_sides_is_named() -> None:
    chained = PairData(tuple(pair(f"a{number}", f"p{number}", str(number), "post all") for number in range(9)))
    with pytest.raises(
        UserError, match=r"9 pairs hang together in 1 groups .* share of 0\.3: add pairs, or name a file"
    ):
        split_pairs(chained, (0.3,), 1)
    one, other = PairData((pair("a", "A", "1"),)), PairData((pair("b", "B", "1"),))
    with pytest.raises(UserError, match="The product 1 is in training and validation"):
        require_apart(one, other)


def test_every_further_picture_of_an_item_asks_for_its_leading_one(tmp_path: Path) -> None:
    path = write_items(tmp_path, 8, pictures=3)
    data = pairs_of_items(path, classes={"Shop/bag": "bag", "Shop": "other"})
    assert [len(data.pairs), len(data.measured), len(data.others)] == [12, 8, 8]
    single, first = data.pairs[0], data.pairs[1]
    assert single.is_single
    assert first.anchor.uri.endswith("item-1-1.png")
    assert first.positive.uri.endswith("item-1-0.png")
    assert (first.product, first.category) == ("i1", "bag")
    assert "style s0" in first.bound
    assert data.products_by_category() == {"bag": 4, "other": 4}
    by_style = pairs_of_items(path, product="style")
    assert by_style.pairs[1].product == "s0"
    assert by_style.pairs[1].category == "Shop/bag/Small"


def test_items_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    for record, said in (
        ({"title": "x"}, "line 1: no item_id"),
        ({"item_id": "1", "images": [7]}, "line 1: item '1': images holds no address and no file name"),
        ({"item_id": "1", "images": [{"file": "../x.jpg"}]}, "line 1: item '1': images: file '../x.jpg' is not inside"),
        ({"item_id": "1"}, "has no item with a picture"),
    ):
        path.write_text(json.dumps(record) + "\n")
        with pytest.raises(UserError, match=said):
            pairs_of_items(path)


def test_a_pair_without_a_product_goes_by_its_positive(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 2, views=2, product_id="")
    data = pairs_of_file(path)
    assert len({row.product for row in data.pairs}) == 2


def test_products_of_one_thumbnail_count_as_one() -> None:
    data = PairData((pair("a", "A", "1"), pair("b", "B", "2")), (Shown(View("C"), "3", ""), Shown(View("A"), "1", "")))
    contents = {View("A"): 7, View("B"): 8, View("C"): 7}
    apart, same = Search.of(data), Search.of(data, contents)
    assert sorted(apart.gallery_products.tolist()) == [0, 1, 2]
    shown = [same.views[row].uri for row in same.gallery]
    product = dict(zip(shown, same.gallery_products.tolist(), strict=True))
    assert product["A"] == product["C"] != product["B"]
    assert same.products[0] == product["A"]


def test_a_thumbnail_that_stands_under_several_products_is_right_for_each() -> None:
    data = PairData((pair("a", "P", "1"), pair("b", "P", "2"), pair("c", "Q", "2"), pair("d", "R", "3")))
    search = Search.of(data)
    assert search.products.tolist() == [0, 0, 0, 1]
    assert [search.views[row].uri for row in search.gallery] == ["P", "Q", "R"]
    assert search.gallery_products.tolist() == [0, 0, 1]


def test_steps_have_one_category_as_far_as_it_has_pairs() -> None:
    categories = ["a"] * 10 + ["b"] * 7 + ["c"] * 3
    sampler = PairSampler(categories, 4, one_category=True, seed=1)
    steps = sampler.epoch(1)
    assert sampler.steps_per_epoch == len(steps) == 5
    of_step = [Counter(categories[row] for row in rows) for rows in steps]
    assert sorted(len(names) for names in of_step)[:3] == [1, 1, 1]
    assert sum(names == Counter(a=4) for names in of_step) == 2
    every = np.concatenate(steps)
    assert len(set(every.tolist())) == len(every) == 20
    assert [rows.tolist() for rows in sampler.epoch(1)] == [rows.tolist() for rows in steps]
    assert [rows.tolist() for rows in sampler.epoch(2)] != [rows.tolist() for rows in steps]
    with pytest.raises(UserError, match="3 pairs of training are fewer than a step of 4"):
        PairSampler(["a"] * 3, 4, one_category=False, seed=1)
