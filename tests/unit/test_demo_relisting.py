"""Second listings of the same product, and the pairs that a matcher learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shopvision.items.item import Item
from shopvision.items.pair_files import read_pairs
from worker.demo.relisting import other_listing, write_pairs


@pytest.mark.parametrize("title", ["Red cotton summer dress", "无线鼠标黑色静音款", "여름 원피스 빨강 롱"])
def test_a_listing_has_the_words_in_another_order(title: str) -> None:
    item = Item("x", title=title, category="Shop/Things", attributes={"colour": ("red",), "size": ("M", "S")})
    listings = [other_listing(item, np.random.default_rng(seed)) for seed in range(20)]
    assert listings == [other_listing(item, np.random.default_rng(seed)) for seed in range(20)]
    titles = {listing["title"] for listing in listings}
    assert title not in titles
    assert len(titles) > 3
    characters = set((title + "(Things) ").casefold())
    assert all(set(other.casefold()) <= characters for other in titles)
    pairs = {("colour", "red"), ("size", "M"), ("size", "S")}
    assert all(set(listing["attributes"]) <= pairs for listing in listings)


def test_validation_pairs_are_of_other_items(tmp_path: Path) -> None:
    items = [Item(f"i{n}", title=f"Thing number {n} of wood", category="a" if n % 2 else "b") for n in range(24)]
    train, valid = (read_pairs(path) for path in write_pairs(items, tmp_path))
    numbers = [{number for item in table.used_items() for number in ids(item.title)} for table in (train, valid)]
    assert not numbers[0] & numbers[1]
    assert 0.2 < train.labels.mean() < 0.3


def ids(title: str) -> set[str]:
    return {word for word in title.split() if word.isdigit()}
