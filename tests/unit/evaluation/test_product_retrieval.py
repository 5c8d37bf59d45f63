"""Recall and average precision with several right answers, ties and chance, against counting every order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from shopvision.evaluation.product_retrieval import NOTHING, retrieve


def by_every_order(scores: list[float], right: list[bool], k: int) -> tuple[float, float]:
    """Recall at k and average precision, the mean over all orders of tied items."""
    recalls, precisions = [], []
    for order in permutations(range(len(scores))):
        ordered = [scores[place] for place in order]
        if ordered != sorted(ordered, reverse=True):
            continue
        hits = [right[place] for place in order]
        recalls.append(float(any(hits[:k])))
        found = np.cumsum(hits)
        precisions.append(np.mean([found[place] / (place + 1) for place in range(len(hits)) if hits[place]]))
    return float(np.mean(recalls)), float(np.mean(precisions))


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ([0.9, 0.5, 0.4, 0.1], [False, True, False, True]),
        ([0.5, 0.5, 0.5, 0.5], [True, False, False, True]),
        ([0.9, 0.5, 0.5, 0.5, 0.1], [False, True, True, False, True]),
        ([0.5, 0.5, 0.1, 0.1, 0.1], [False, True, False, True, True]),
    ],
)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_ties_are_the_mean_over_orders(scores: list[float], right: list[bool], k: int) -> None:
    gallery = np.array(scores, np.float32)[:, None]
    found = retrieve(
        np.ones((1, 1), np.float32), gallery, np.array([1]), np.array([1 if one else 0 for one in right]), (k,)
    )
    recall, precision = by_every_order(scores, right, k)
    assert found.recall[0, 0] == pytest.approx(recall, abs=1e-9)
    assert found.average_precision[0] == pytest.approx(precision, abs=1e-9)
    by_chance = by_every_order([0.0] * len(scores), right, k)
    assert found.random_recall[0, 0] == pytest.approx(by_chance[0], abs=1e-9)
    assert found.random_average_precision[0] == pytest.approx(by_chance[1], abs=1e-9)


def test_the_query_itself_is_left_out() -> None:
    vectors = np.eye(3, dtype=np.float32)
    products = np.array([1, 1, 2])
    gallery = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.8, 0, 0.6]], np.float32)
    found = retrieve(vectors[:1], gallery, np.array([1]), products, (1, 2), own=np.array([0]))
    assert found.recall.tolist() == [[0.0, 1.0]]
    assert found.random_recall[0].tolist() == pytest.approx([0.5, 1.0])
    with pytest.raises(ValueError, match="query 0 has no right answer"):
        retrieve(vectors[:1], gallery, np.array([2]), products, (1,), own=np.array([2]))


def test_columns_have_the_names_of_metrics() -> None:
    found = retrieve(
        np.ones((2, 1), np.float32), np.ones((4, 1), np.float32), np.array([0, 1]), np.arange(4), (1, 5),
        own=np.array([NOTHING, NOTHING]),
    )  # fmt: skip
    values, random = found.columns((1, 5))
    assert list(values) == list(random) == ["recall_1", "recall_5", "map"]
    assert values["recall_1"].tolist() == random["recall_1"].tolist() == pytest.approx([0.25, 0.25])
    assert values["map"].tolist() == pytest.approx([(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4] * 2)
