"""Texts that have several right pictures: by hand, against all orders of ties, and the published chance level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shopvision.evaluation.text_retrieval import retrieve_pictures

KS = (1, 2, 3)


def test_two_texts_by_hand() -> None:
    """Similarities (0.9, 0.1, 0.5, 0.3) and (0.1, 0.9, 0.5, 0.3); right are pictures 2, 3 and picture 1."""
    texts = np.eye(2, dtype=np.float32)
    pictures = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.3, 0.3]], np.float32)
    found = retrieve_pictures(texts, pictures, [[2, 3], [1]], KS)
    assert found.hit.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert found.recall.tolist() == [[0, 0.5, 1], [1, 1, 1]]
    assert found.reciprocal_rank.tolist() == [0.5, 1.0]
    assert list(found.columns(KS)) == [
        "hit_rate_1", "hit_rate_2", "hit_rate_3", "recall_1", "recall_2", "recall_3", "mrr",
    ]  # fmt: skip
    assert found.random is not None
    # One of four: 1/4, 2/4, 3/4; its rank is 1 to 4 alike.
    np.testing.assert_allclose(found.random.hit[1], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(found.random.reciprocal_rank[1], (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    np.testing.assert_allclose(found.random.recall, [[0.25, 0.5, 0.75]] * 2)


def test_ties_are_worth_the_mean_over_all_their_orders() -> None:
    scores, right = np.array([0.7, 0.5, 0.5, 0.5, 0.5, 0.2]), {2, 4, 5}
    values = []
    for tied in itertools.permutations([1, 2, 3, 4]):
        order = [0, *tied, 5]
        ranks = sorted(order.index(row) + 1 for row in right)
        hit = [float(ranks[0] <= k) for k in KS]
        values.append([*hit, *(sum(rank <= k for rank in ranks) / 3 for k in KS), 1 / ranks[0]])
    found = retrieve_pictures(np.ones((1, 1), np.float32), scores[:, None].astype(np.float32), [sorted(right)], KS)
    got = [*found.hit[0], *found.recall[0], found.reciprocal_rank[0]]
    np.testing.assert_allclose(got, np.mean(values, axis=0))


def test_chance_of_the_published_protocol() -> None:
    """500 places with ten pictures each: the complement of choosing five of the 4,990 wrong ones."""
    pictures = np.zeros((5000, 1), np.float32)
    found = retrieve_pictures(np.ones((1, 1), np.float32), pictures, [range(10)], (5,))
    wrong = np.prod([(4990 - i) / (5000 - i) for i in range(5)])
    assert found.hit[0, 0] == pytest.approx(1 - wrong, rel=1e-9)
    assert round(found.hit[0, 0], 5) == 0.00996
    assert found.recall[0, 0] == pytest.approx(5 / 5000)


def test_a_text_without_a_picture_finds_nothing() -> None:
    found = retrieve_pictures(np.ones((1, 1), np.float32), np.ones((3, 1), np.float32), [[]], KS)
    assert found.random is not None
    assert (found.hit.sum(), found.recall.sum(), found.reciprocal_rank[0], found.random.hit.sum()) == (0, 0, 0, 0)
