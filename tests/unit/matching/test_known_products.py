"""What labels say of offers, and which of them meet in a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from shopvision.index import scanning
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.contrastive_config import Negatives
from shopvision.matching.fitting.contrastive_steps import (
    MOST_OFFERS,
    NEIGHBOURS,
    hard_products,
    shown_offers,
    steps_of_epoch,
)
from shopvision.matching.fitting.known_products import KnownProducts

# Offer 0 is in no pair, so row r of what is known is item r + 1. Products: {1, 2, 3}, {4, 5}, {6}, {7}.
SAME, DIFFERENT = [(1, 2), (2, 3), (4, 5)], [(3, 6), (7, 1)]
SOURCES = ["", "abt", "buy", "abt", "abt", "buy", "buy", "abt"]


def known(negatives: Negatives, sources: list[str] = SOURCES) -> KnownProducts:
    items = tuple(Item(str(number), source=source) for number, source in enumerate(sources))
    left, right = np.array([*SAME, *DIFFERENT], np.int32).T
    labels = np.array([1] * len(SAME) + [0] * len(DIFFERENT), np.int8)
    return KnownProducts.of(PairTable(items, left, right, labels), negatives)


def repelling(offers: KnownProducts) -> set[tuple[int, int]]:
    rows = np.arange(7)
    found = offers.repel(rows[:, None], rows[None, :])
    assert (found == found.T).all()
    return {(a + 1, b + 1) for a, b in zip(*np.nonzero(np.triu(found)), strict=True)}


def test_offers_that_pairs_link_are_one_product() -> None:
    product = known("all").product.tolist()
    assert len(set(product[:3])) == len(set(product[3:5])) == 1
    assert len(set(product)) == 4
    assert known("all").labelled_different(product[0]) == sorted({product[5], product[6]})


def test_all_others_repel_each_other() -> None:
    own = {(1, 2), (1, 3), (2, 3), (4, 5)}
    every = {(a, b) for a in range(1, 8) for b in range(a + 1, 8)}
    assert repelling(known("all")) == every - own


def test_labels_alone_hold_for_all_offers_of_a_product() -> None:
    assert repelling(known("labelled")) == {(1, 6), (2, 6), (3, 6), (1, 7), (2, 7), (3, 7)}


def test_of_an_offer_and_a_product_that_its_source_offers_already_it_is_known_that_they_differ() -> None:
    found = repelling(known("sources"))
    # 6 is of buy and 7 of abt, and neither has a partner: they may be one product, and no label says otherwise.
    assert (6, 7) not in found
    # Both products 1 to 3 and 4 to 5 are offered by both sources, so every other offer is none of them.
    assert found == repelling(known("all")) - {(6, 7)}
    # Without a source nothing follows, whatever the others' sources are.
    nameless = repelling(known("sources", [*SOURCES[:7], ""]))
    assert {(4, 7), (5, 7), (6, 7)}.isdisjoint(nameless)
    assert {(1, 7), (4, 6)} <= nameless


def test_a_contradiction_within_a_product_repels_nobody() -> None:
    table = PairTable(
        tuple(map(Item, "abc")),
        np.array([0, 1, 0], np.int32),
        np.array([1, 2, 2], np.int32),
        np.array([1, 1, 0], np.int8),
    )
    for negatives in ("all", "labelled"):
        assert not KnownProducts.of(table, negatives).repel(np.arange(3)[:, None], np.arange(3)).any()  # type: ignore[arg-type] # one of them


def test_hard_products_are_the_nearest_that_may_be_told_apart() -> None:
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    offers = known("all")
    first, second, third, fourth = (int(offers.product[row]) for row in (0, 3, 5, 6))
    hard = hard_products(offers, vectors)
    assert hard[first] == [second, third, fourth]
    assert hard[third] == [second, first, fourth]
    labelled = hard_products(known("labelled"), vectors)
    assert labelled[first] == [third, fourth]
    assert labelled[second] == []


def test_of_many_offers_nearly_the_same_are_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1_000
    alone = csr_array((count, count), dtype=np.int32)
    nowhere = np.zeros((count, 0), np.bool_)
    offers = KnownProducts(np.arange(count), np.full(count, -1), alone, nowhere, "all")
    vectors = np.random.default_rng(7).normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = hard_products(offers, vectors)
    likeness = vectors.astype(np.float64) @ vectors.T
    assert [likeness[own, others].min() for own, others in enumerate(exact)] == pytest.approx(
        np.sort(likeness, axis=1)[:, -NEIGHBOURS], abs=2e-3
    )
    monkeypatch.setattr(scanning, "EXACT_UP_TO", 100)
    scanned = hard_products(offers, vectors)
    assert scanned != exact
    found = [len({*a} & {*b}) / len(a) for a, b in zip(exact, scanned, strict=True)]
    assert np.mean(found) > 0.9
    assert all(own not in others for own, others in enumerate(scanned))
    # One cell holds fewer than are asked for; what FAISS fills the rest with is no offer.
    monkeypatch.setattr(scanning, "PROBED_CELLS", 1)
    few = hard_products(offers, vectors)
    assert max(map(len, few)) < NEIGHBOURS - 1
    assert sum(count - 1 in others for others in few) < NEIGHBOURS


def test_every_product_comes_once_with_what_it_is_taken_for() -> None:
    count = 40
    offers = [list(range(10 * product, 10 * product + 1 + product % 9)) for product in range(count)]
    hard = [[product ^ 1] for product in range(count)]
    steps = steps_of_epoch(offers, hard, 9, 1, np.random.default_rng(3))
    products = [{row // 10 for row in step.tolist()} for step in steps]
    assert len(steps) == 9
    assert sum(map(len, products)) == count
    assert set.union(*products) == set(range(count))
    shown = [sum(min(len(offers[product]), MOST_OFFERS) for product in step) for step in products]
    assert [len(step) for step in steps] == shown
    assert max(shown) - min(shown) <= 2 * MOST_OFFERS
    together = sum(len({product ^ 1 for product in step} & step) for step in products)
    assert together >= count - 2 * len(steps)  # a pair may be cut where a step ends
    again = steps_of_epoch(offers, hard, 9, 1, np.random.default_rng(3))
    assert all(map(np.array_equal, steps, again))


def test_a_single_offer_is_shown_twice_where_it_is_to_attract_itself() -> None:
    offers = known("all")
    assert sorted(shown_offers(offers, twins=False)) == [[0, 1, 2], [3, 4], [5], [6]]
    assert sorted(shown_offers(offers, twins=True)) == [[0, 1, 2], [3, 4], [5, 5], [6, 6]]
    assert replace(offers, negatives="labelled").count == 4
