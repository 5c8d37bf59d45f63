"""Ranking metrics against values by hand, against every order of the ties, and against scikit-learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.evaluation.ranking_metrics import (
    RankedLists,
    ndcg,
    random_ndcg,
    random_reciprocal_rank,
    random_top_hit,
    reciprocal_rank,
    top_hit,
)


def lists(*pairs: tuple[Sequence[float], Sequence[float]]) -> RankedLists:
    return RankedLists.from_lists([scores for scores, _ in pairs], [labels for _, labels in pairs])


def orders(values: Sequence[float]) -> list[tuple[int, ...]]:
    """Every descending order of the items, each order of tied ones once."""
    items = range(len(values))
    return [
        order
        for order in itertools.permutations(items)
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
    ]


def brute_force(
    scores: Sequence[float], labels: Sequence[float], metric: Callable[[tuple[int, ...], tuple[int, ...]], float]
) -> float:
    """Mean of ``metric(predicted order, true order)`` over every order of tied scores and of tied labels."""
    return float(np.mean([metric(seen, true) for seen in orders(scores) for true in orders(labels)]))


def test_reciprocal_rank_by_hand() -> None:
    values = reciprocal_rank(
        lists(
            ([0.9, 0.1, 0.5], [0.3, 0.2, 0.1]),  # the best item leads
            ([0.1, 0.9, 0.5, 0.7], [0.3, 0.2, 0.1, 0.0]),  # it is last of four
            ([0.5, 0.5, 0.9], [3, 0, 0]),  # rank 2 or 3: (1/2 + 1/3) / 2
            ([0.9, 0.5, 0.7], [1, 1, 0]),  # two best ones at 1 and 3: (1 + 1/3) / 2
            ([-2.0], [0.0]),
        )
    )
    np.testing.assert_allclose(values, [1, 1 / 4, 5 / 12, 2 / 3, 1], rtol=1e-13)


def test_the_random_reciprocal_rank_is_the_harmonic_number_over_n() -> None:
    expected = [float(sum(Fraction(1, rank) for rank in range(1, n + 1)) / n) for n in (1, 2, 50, 1000)]
    np.testing.assert_allclose(random_reciprocal_rank(np.array([1, 2, 50, 1000])), expected, rtol=1e-12)
    assert round(expected[2], 5) == 0.08998


@pytest.mark.parametrize(
    ("truly", "predicted", "expected"),
    [(1, 1, [0, 0, 1]), (3, 1, [0, 1, 1]), (5, 1, [1, 1, 1]), (5, 5, [1, 1, 1]), (1, 5, [1, 0, 1])],
)
def test_hits_by_hand(truly: int, predicted: int, expected: list[int]) -> None:
    labels = [8, 7, 6, 5, 4, 3, 2, 1]
    found = lists(
        ([3, 1, 1, 7, 9, 1, 1, 1], labels),  # predicted order starts with the true 5th, 4th, 1st
        ([0, 9, 8, 7, 1, 6, 5, 1], labels),  # the true 2nd, 3rd, 4th, 6th and 7th lead
        ([5, 4, 3], [9, 8, 7]),  # fewer items than asked for
    )
    np.testing.assert_allclose(top_hit(found, truly, predicted), expected)


def test_the_random_hit_is_the_published_one() -> None:
    counts = np.array([50])
    assert [round(float(random_top_hit(counts, n, 1)[0]), 12) for n in (1, 3, 5)] == [0.02, 0.06, 0.1]
    expected = 1 - math.comb(45, 5) / math.comb(50, 5)
    np.testing.assert_allclose(random_top_hit(counts, 5, 5), expected, rtol=1e-12)
    np.testing.assert_allclose(random_top_hit(np.array([1, 2, 3, 6]), 3, 5), [1, 1, 1, 1])


@pytest.mark.parametrize("seed", range(12))
def test_ties_give_the_mean_over_every_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 6))
    scores = generator.integers(0, 3, count).astype(float).tolist()
    labels = generator.integers(0, 3, count).astype(float).tolist()
    # Another, longer list beside it: padding must not matter.
    both = lists((scores, labels), (list(range(7)), list(range(7))))

    def reciprocal(seen: tuple[int, ...], true: tuple[int, ...]) -> float:
        return 1 / (seen.index(true[0]) + 1)

    assert reciprocal_rank(both)[0] == pytest.approx(brute_force(scores, labels, reciprocal))
    for truly, predicted in ((1, 1), (3, 1), (1, 3), (2, 2), (3, 2), (5, 5)):

        def hit(seen: tuple[int, ...], true: tuple[int, ...], n: int = truly, k: int = predicted) -> float:
            return float(bool(set(true[:n]) & set(seen[:k])))

        assert top_hit(both, truly, predicted)[0] == pytest.approx(brute_force(scores, labels, hit))
    for k in (1, 3, 10):

        def gain(seen: tuple[int, ...], true: tuple[int, ...], k: int = k) -> float:
            def total(order: tuple[int, ...]) -> float:
                return sum(labels[item] / math.log2(rank + 2) for rank, item in enumerate(order[:k]))

            return total(seen) / total(true) if any(labels) else math.nan

        assert ndcg(both, k)[0] == pytest.approx(brute_force(scores, labels, gain), nan_ok=True)


@pytest.mark.parametrize("metric", ["rr", "hit", "ndcg"])
def test_one_score_for_all_is_exactly_random(metric: str) -> None:
    generator = np.random.default_rng(1)
    same = RankedLists.from_lists([np.zeros(n) for n in (50, 7, 1)], [generator.random(n) + 0.1 for n in (50, 7, 1)])
    value, expected = {
        "rr": (reciprocal_rank(same), random_reciprocal_rank(same.counts)),
        "hit": (top_hit(same, 5, 3), random_top_hit(same.counts, 5, 3)),
        "ndcg": (ndcg(same, 10), random_ndcg(same, 10)),
    }[metric]
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_random_scores_come_to_the_random_expectation() -> None:
    generator = np.random.default_rng(3)
    labels = generator.exponential(size=20) * (generator.random(20) < 0.4)
    drawn = RankedLists.from_lists(list(generator.random((20_000, 20))), [labels] * 20_000)
    for value, expected in (
        (reciprocal_rank(drawn), random_reciprocal_rank(drawn.counts)),
        (top_hit(drawn, 3, 2), random_top_hit(drawn.counts, 3, 2)),
        (ndcg(drawn, 5), random_ndcg(drawn, 5)),
    ):
        assert value.mean() == pytest.approx(expected[0], abs=4 * value.std() / math.sqrt(20_000))


def test_ndcg_agrees_with_scikit_learn_also_on_ties() -> None:
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(2)
    labels = generator.exponential(size=(30, 40)) * (generator.random((30, 40)) < 0.3)
    scores = generator.integers(0, 12, (30, 40)).astype(float)
    found = RankedLists.from_lists(list(scores), list(labels))
    for k in (1, 5, 10, 100):
        expected = [ndcg_score(labels[row : row + 1], scores[row : row + 1], k=k) for row in range(30)]
        np.testing.assert_allclose(ndcg(found, k), expected, rtol=1e-12)


def test_the_order_of_rows_changes_nothing() -> None:
    generator = np.random.default_rng(4)
    scores, labels = generator.integers(0, 4, 30), generator.integers(0, 4, 30)
    moved: NDArray[np.int64] = generator.permutation(30)
    one, other = lists((scores, labels)), lists((scores[moved], labels[moved]))  # type: ignore[arg-type] # arrays
    for metric in (reciprocal_rank, lambda x: top_hit(x, 5, 5), lambda x: ndcg(x, 10)):
        np.testing.assert_allclose(metric(one), metric(other), rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "0 lists"),
        ([[1.0]], [[1.0], [2.0]], "1 lists of scores and 2 of labels"),
        ([[1.0, 2.0]], [[1.0]], "List 0 has 2 scores and 1 labels"),
        ([[1.0], []], [[1.0], []], "List 1 has 0 scores"),
        ([[1.0], [np.nan]], [[1.0], [1.0]], "List 1 has a score or label that is not a finite number"),
        ([[1.0]], [[np.inf]], "List 0 has a score or label"),
    ],
)
def test_bad_lists_are_refused(scores: list[list[float]], labels: list[list[float]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        RankedLists.from_lists(scores, labels)


def test_ndcg_refuses_negative_labels() -> None:
    with pytest.raises(UserError, match="A label is -1"):
        ndcg(lists(([1, 2], [0, -1])), 5)
