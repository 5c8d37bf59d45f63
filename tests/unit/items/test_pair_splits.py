"""Splits that share no item, and categories never seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.pair_splits import is_unseen, seen_categories, split_by_component
from shopvision.items.pair_table import PairTable

FRACTIONS = {"train": 0.6, "valid": 0.2, "test": 0.2}


def table(left: Sequence[int], right: Sequence[int], labels: Sequence[int], categories: str = "") -> PairTable:
    count = max([*left, *right], default=-1) + 1
    items = tuple(Item(str(row), category=(categories or "x" * count)[row]) for row in range(count))
    return PairTable(items, np.array(left, np.int32), np.array(right, np.int32), np.array(labels, np.int8))


def chains(count: int = 400, seed: int = 0) -> PairTable:
    """Components of 1 to 5 pairs, one pair in five positive."""
    generator = np.random.default_rng(seed)
    left, right, row = [], [], 0
    for length in generator.integers(1, 6, count).tolist():
        left += range(row, row + length)
        right += range(row + 1, row + length + 1)
        row += length + 1
    order = generator.permutation(len(left))
    labels = (generator.random(len(left)) < 0.2).astype(np.int8)
    return table(np.array(left)[order].tolist(), np.array(right)[order].tolist(), labels.tolist())


def test_no_item_is_on_two_sides_and_labels_are_shared_out() -> None:
    whole = chains()
    parts = split_by_component(whole, FRACTIONS, 1)
    assert list(parts) == list(FRACTIONS)
    used = [set(part.item_rows().tolist()) for part in parts.values()]
    assert sum(map(len, used)) == len(set.union(*used))
    assert sum(map(len, parts.values())) == len(whole)
    for name, part in parts.items():
        assert len(part) == pytest.approx(FRACTIONS[name] * len(whole), abs=3)
        assert (part.labels == 1).sum() == pytest.approx(FRACTIONS[name] * (whole.labels == 1).sum(), abs=3)


def test_pairs_keep_their_order() -> None:
    whole = chains()
    places = {pair: place for place, pair in enumerate(zip(whole.left.tolist(), whole.right.tolist(), strict=True))}
    for part in split_by_component(whole, FRACTIONS, 1).values():
        found = [places[pair] for pair in zip(part.left.tolist(), part.right.tolist(), strict=True)]
        assert found == sorted(found)


def test_the_seed_alone_decides() -> None:
    whole = chains()
    one, again, other = (split_by_component(whole, FRACTIONS, seed)["test"].fingerprint() for seed in (1, 1, 2))
    assert one == again != other


def test_a_large_group_stays_together() -> None:
    # a star of 8 pairs, and two single pairs
    whole = table([0] * 8 + [9, 11], [*range(1, 9), 10, 12], [1] * 10)
    parts = split_by_component(whole, {"train": 0.5, "valid": 0.5}, 0)
    assert sorted(map(len, parts.values())) == [2, 8]


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match="3 pairs form 1 groups that share no item, the largest of 3 pairs"):
        split_by_component(table([0, 1, 2], [1, 2, 3], [1, 0, 1]), {"train": 0.8, "valid": 0.2}, 0)
    with pytest.raises(UserError, match="0 pairs form 0 groups"):
        split_by_component(table([], [], []), {"train": 1}, 0)


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.2, "b": -0.2}, {"a": 1, "b": 0}])
def test_wrong_fractions(fractions: dict[str, float]) -> None:
    with pytest.raises(UserError, match="sum up to 1"):
        split_by_component(chains(3), fractions, 0)


def test_unseen_categories() -> None:
    train = table([0, 2], [1, 3], [1, 0], "aabc").select(np.array([0]))
    seen = seen_categories(train)
    assert seen == {"a"}
    test = table([0, 0, 2], [1, 2, 3], [1, 1, 1], "aabb")
    assert is_unseen(test, seen).tolist() == [False, True, True]
