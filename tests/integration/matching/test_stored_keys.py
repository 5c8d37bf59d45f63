"""Keys of items in Postgres: kept up to date by what changed, and a few due items find what a look at all finds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, text, update

from shopvision.catalogue.tables import Item
from shopvision.database import connect
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.matching.blocking import CandidatePair, candidate_pairs, candidates, incremental, stored_keys
from shopvision.matching.blocking.keys import key_digests
from shopvision.matching.options import BlockingOptions
from shopvision.matching.tables import BlockingKeyCount, BlockingKeys
from shopvision.storage import open_store
from tests.integration.index.catalogue import make_model
from tests.integration.matching.test_blocking_catalogue import add_item, add_pictures, add_vectors, encoder, reader

__all__ = ["encoder", "reader"]

pytestmark = pytest.mark.usefixtures("database")


def require_true_counts() -> None:
    """What is stored is what the items give now."""
    with connect() as connection:
        ids = connection.scalars(select(Item.item_id)).all()
        expected = {item_id: set(key_digests(item).view(np.int64).tolist())
                    for item_id, item in items_from_catalogue(connection, ids).items()}  # fmt: skip
        stored = dict(connection.execute(select(BlockingKeys.item_id, BlockingKeys.keys)).all())
        counts = dict(connection.execute(select(BlockingKeyCount.key, BlockingKeyCount.items)).all())
    assert {item_id: set(keys) for item_id, keys in stored.items()} == expected
    assert counts == Counter(key for keys in expected.values() for key in keys)


def change(item_id: str, title: str) -> None:
    with connect() as connection:
        connection.execute(update(Item).where(Item.item_id == item_id).values(title=title, content_hash=title.encode()))


def test_only_what_changed_is_keyed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        add_item(f"item-{number}", f"red shirt {number} DX-10{number}", fabric="linen")
    read: list[list[str]] = []

    def watched(connection: Any, item_ids: list[str]) -> Any:
        read.append(list(item_ids))
        return items_from_catalogue(connection, item_ids)

    monkeypatch.setattr(stored_keys, "items_from_catalogue", watched)
    monkeypatch.setattr(stored_keys, "COMMIT_ITEMS", 3)
    stored_keys.bring_up_to_date()
    assert sorted(item_id for part in read for item_id in part) == [f"item-{number}" for number in range(7)]
    require_true_counts()
    read.clear()
    stored_keys.bring_up_to_date()
    assert read == []
    change("item-2", "blue shirt")
    add_item("item-9", "red hat")
    with connect() as connection:
        connection.execute(delete(Item).where(Item.item_id == "item-0"))
    stored_keys.bring_up_to_date()
    assert sorted(item_id for part in read for item_id in part) == ["item-2", "item-9"]
    require_true_counts()
    read.clear()
    monkeypatch.setattr(stored_keys, "KEY_SCHEME", 99)
    stored_keys.bring_up_to_date()
    assert len({item_id for part in read for item_id in part}) == 7
    require_true_counts()


def by_both_ways(
    due: list[str], options: BlockingOptions, monkeypatch: pytest.MonkeyPatch, **others: Any
) -> list[CandidatePair]:
    """The candidates of a few items: looked up around them, and found among all. They are the same."""
    used: list[bool] = []

    def watched(*arguments: Any, **named: Any) -> Any:
        found = incremental.finders_around(*arguments, **named)
        used.append(found is not None)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(candidates, "finders_around", watched)
        few = [pair for batch in candidate_pairs(due, options, **others) for pair in batch]
        assert used == [True]
        patched.setattr(candidates, "FEW_ITEMS", -1)
        everything = [pair for batch in candidate_pairs(due, options, **others) for pair in batch]
        assert used == [True]
    assert few == everything
    return few


@pytest.mark.parametrize("within", ["root_category", "category", "any"])
def test_a_few_items_find_what_they_find_among_all(
    encoder: Any, reader: Any, within: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(3)
    monkeypatch.setattr(incremental, "LOOK_UP_COST", 0)  # small catalogues are looked up one by one as well
    words = [f"{a}{b}" for a in "abcde" for b in "klmnopq"]
    ids = [f"{'Zz' if number % 2 else 'a'}-{number:03d}" for number in range(150)]
    categories = ["Men/A", "Men/B", "Women", None]
    for number, item_id in enumerate(ids):
        title = " ".join(generator.choice(words, 5))
        category = categories[int(generator.integers(4))]
        add_item(item_id, title, category, mpn=f"X-{number // 2 % 40:04d}", fabric=str(generator.choice(words)))
    blocker = make_model("blocker", "1")
    add_vectors(blocker, {item_id: generator.normal(size=6).tolist() for item_id in ids[:120]})
    shared = [
        (item_id, bytes([number % 20]), generator.normal(size=3).tolist()) for number, item_id in enumerate(ids[:90])
    ]
    add_pictures(encoder, [*shared, *((item_id, b"common", [1, 0, 0]) for item_id in ids[60:80])])
    from shopvision.index.publish import publish

    publish("shop", encoder, open_store())
    due = ["gone", *ids[3:60:9], ids[-1]]
    for options in (
        BlockingOptions(within=within),
        BlockingOptions(within=within, max_per_item=3, neighbours=2, rare_value_limit=6, min_similarity=0.3),
        BlockingOptions(within=within, sources=("same_picture", "words")),
    ):
        found = by_both_ways(due, options, monkeypatch, blocker=blocker, index_reader=reader)
        assert len(found) >= 5
        assert {source for pair in found for source in pair.sources} == set(options.sources)
    change(ids[3], "quite another title")
    by_both_ways([ids[3]], BlockingOptions(within=within), monkeypatch, blocker=blocker, index_reader=reader)
    require_true_counts()


def test_a_budget_cuts_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from shopvision.matching.blocking import finders

    monkeypatch.setattr(incremental, "LOOK_UP_COST", 0)
    for module in (incremental, finders):
        monkeypatch.setattr(module, "WORD_BUDGET", 25)
    generator = np.random.default_rng(5)
    words = [f"w{number}" for number in range(24)]
    for number in range(90):
        add_item(f"item-{number:02d}", " ".join(generator.choice(words, 6)))
    assert by_both_ways([f"item-{number:02d}" for number in range(0, 90, 7)], BlockingOptions(), monkeypatch)


def test_many_partners_are_found_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        add_item(f"item-{number:02d}", "same title")
    reads: list[Path] = []
    monkeypatch.setattr(candidates, "catalogue_finders", lambda *a, **k: (reads.append(a[2]), _whole(*a, **k))[1])
    from shopvision.matching.blocking.finders import catalogue_finders as _whole

    assert len([pair for batch in candidate_pairs(["item-03"], BlockingOptions()) for pair in batch]) == 19
    assert len(reads) == 1
    with connect() as connection:
        connection.execute(text("DELETE FROM items"))
    assert list(candidate_pairs(["item-03"], BlockingOptions())) == []
