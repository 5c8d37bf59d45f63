"""Folds that share no item and tell as many pairs of the same item as there are."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.pair_folds import item_folds
from shopvision.items.pair_table import PairTable


def neighbours(products: int, per_product: int, seed: int) -> PairTable:
    """Every product beside its successors, as blocking has it: all pairs hang together."""
    generator = np.random.default_rng(seed)
    pairs = set()
    for number in range(products):
        pairs.add((2 * number, 2 * number + 1, 1))
        for step in range(1, per_product + 1):
            other = (number + step) % products
            pairs.add((2 * number + int(generator.integers(2)), 2 * other + int(generator.integers(2)), 0))
    order = generator.permutation(sorted(pairs))
    items = tuple(Item(str(row)) for row in range(2 * products))
    left, right = order[:, 0].astype(np.int32), order[:, 1].astype(np.int32)
    return PairTable(items, left, right, order[:, 2].astype(np.int8))


@pytest.mark.parametrize("per_product", [1, 5])
@pytest.mark.parametrize("count", [2, 5])
def test_no_item_is_on_both_sides_of_a_fold(count: int, per_product: int) -> None:
    table = neighbours(300, per_product, 1)
    folds = item_folds(table, count, 7)
    assert len(folds) == count
    for fold in folds:
        learnt, held_out = table.select(fold.learn), table.select(fold.held_out)
        assert not set(learnt.item_rows().tolist()) & set(held_out.item_rows().tolist())
        assert (np.diff(fold.learn) > 0).all()
        assert (np.diff(fold.held_out) > 0).all()
    told = np.concatenate([fold.held_out for fold in folds])
    assert len(np.unique(told)) == len(told) > 0.4 * len(table)
    assert table.labels[told].mean() == pytest.approx(table.labels.mean(), abs=0.002)


def test_pairs_that_hang_on_nothing_are_all_told_once() -> None:
    labels = (np.arange(90) % 3 == 0).astype(np.int8)
    left = np.arange(90, dtype=np.int32)
    table = PairTable(tuple(Item(str(row)) for row in range(180)), left, left + np.int32(90), labels)
    folds = item_folds(table, 3, 1)
    assert sorted(np.concatenate([fold.held_out for fold in folds]).tolist()) == list(range(90))
    assert {len(fold.learn) for fold in folds} == {60}


def test_one_product_cannot_be_dealt_out() -> None:
    items = tuple(Item(str(row)) for row in range(4))
    sides = np.array([0, 0, 0], np.int32), np.array([1, 2, 3], np.int32)
    table = PairTable(items, *sides, np.array([1, 1, 0], np.int8))
    with pytest.raises(UserError, match="3 pairs cannot be dealt out to 2 folds that share no item"):
        item_folds(table, 2, 1)
