"""What each step samples: distributions against known probabilities, distinctness, ranks and epochs."""

from __future__ import annotations

import cProfile
from itertools import permutations

import numpy as np
import pytest
import structlog
from scipy.stats import chisquare

from shopvision.errors import UserError
from shopvision.selection.clik import sampling
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.sampling import RankingSampler, Step, ranking_group
from shopvision.selection.clik.weighted_sampling import tie_broken, weighted_sample
from tests.unit.selection.exhibitions import data, exhibition

ENOUGH = 1e-3  # p-value below which a distribution counts as another one


def shop(exhibitions: int = 30, products: int = 25) -> RankingData:
    draw = np.random.default_rng(5)
    return data(
        *(
            exhibition(f"{number:03d}", sparse(products, draw).tolist(), first=number * products)
            for number in range(exhibitions)
        )
    )


def sparse(products: int, draw: np.random.Generator) -> np.ndarray:
    """Click-through rates as a log gives them: mostly zero, few large; at least one above 0."""
    labels = np.where(draw.random(products) < 0.25, draw.exponential(0.02, products), 0)
    labels[0] += 0.001
    return np.sort(labels.astype(np.float32))[::-1].copy()


def steps(sampler: RankingSampler, epoch: int = 0) -> list[Step]:
    return list(sampler.epoch(epoch))


def test_weighted_samples_have_the_probabilities_of_drawing_one_by_one() -> None:
    """Pairs drawn from weights 4, 3, 2, 1: P(i then j) = w_i / W * w_j / (W - w_i), summed over both orders."""
    weights, draws = np.array([4.0, 3.0, 2.0, 1.0]), 20_000
    expected: dict[tuple[int, ...], float] = {}
    for i, j in permutations(range(4), 2):
        pair = tuple(sorted((i, j)))
        expected[pair] = expected.get(pair, 0) + weights[i] / 10 * weights[j] / (10 - weights[i])
    generator = np.random.default_rng(0)
    counts = dict.fromkeys(expected, 0)
    for _ in range(draws):
        counts[tuple(sorted(weighted_sample(weights, 2, generator).tolist()))] += 1
    frequencies = [counts[pair] for pair in expected]
    assert chisquare(frequencies, np.array(list(expected.values())) * draws).pvalue > ENOUGH


def test_draws_at_the_edges() -> None:
    generator = np.random.default_rng(0)
    assert len(weighted_sample(np.ones(3), 0, generator)) == 0
    assert sorted(weighted_sample(np.ones(3), 3, generator)) == [0, 1, 2]
    assert sorted(weighted_sample(np.array([0.0, 1.0, 2.0, 0.0]), 2, generator)) == [1, 2]
    weights = tie_broken(np.array([0, 0, 1], np.float32), generator)
    assert weights.min() > 0
    assert weights.max() - 1 <= 1e-8
    assert weights[0] != weights[1]


def one_by_one(labels: np.ndarray, size: int, generator: np.random.Generator) -> tuple[bool, bool]:
    """The published rule written down with numpy's own drawing: is the positive first, is the best one first?"""
    weights = labels + generator.random(len(labels)) * 1e-8
    drawn = generator.choice(len(labels), 5, replace=False, p=weights / weights.sum())
    positive = drawn[weights[drawn].argmax()]
    rest = np.delete(np.arange(len(labels)), positive)
    lacking = weights[rest].max() - weights[rest]
    negatives = generator.choice(rest, size - 1, replace=False, p=lacking / lacking.sum())
    first = max([positive, *negatives], key=lambda row: weights[row])
    return first == positive, labels[first] == labels[0]


def test_weighted_groups_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse rates, N=50, K=20: the positive is first in 0.993 and the exhibition's best in about 0.855 of draws."""
    drawn: list[tuple[np.ndarray, np.ndarray]] = []

    def noted(weights: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        places = weighted_sample(weights, count, generator)
        drawn.append((weights, places))
        return places

    monkeypatch.setattr(sampling, "weighted_sample", noted)
    generator, count = np.random.default_rng(7), 3000
    ours, theirs = np.zeros(2), np.zeros(2)
    for _ in range(count):
        labels = sparse(50, generator)
        drawn.clear()
        rows = ranking_group(labels, 20, "weighted", generator)
        weights, places = drawn[0]
        ours += (rows[0] == places[weights[places].argmax()], labels[rows[0]] == labels[0])
        theirs += one_by_one(labels, 20, generator)
        assert len(set(rows.tolist())) == 20
        assert np.all(np.diff(labels[rows]) <= 0)
    assert ours / count == pytest.approx([0.993, 0.855], abs=0.02)
    assert ours / count == pytest.approx(theirs / count, abs=0.02)


def test_negatives_are_drawn_for_low_labels() -> None:
    """Labels 3, 2, 1, 0 and a group of 2: given the positive 3 the negative is 1 or 0 with odds (2-1) : (2-0)."""
    labels, generator = np.array([3000, 2, 1, 0], np.float32), np.random.default_rng(1)
    labels[0] = 1e6  # always among the five drawn, and their best
    rows = np.array([ranking_group(labels, 2, "weighted", generator) for _ in range(6000)])
    assert set(rows[:, 0]) == {0}
    assert chisquare(np.bincount(rows[:, 1], minlength=4)[2:], [2000, 4000]).pvalue > ENOUGH
    assert 1 not in rows[:, 1]  # the best of the rest never is a negative


def test_other_ways_to_draw_a_group() -> None:
    labels, generator = np.arange(10, 0, -1).astype(np.float32), np.random.default_rng(1)
    assert ranking_group(labels, 3, "sequential", generator).tolist() == [0, 1, 2]
    for way in ("weighted", "random", "sequential"):
        assert ranking_group(labels, 10, way, generator).tolist() == list(range(10))  # whole, nothing is drawn
    rows = np.array([ranking_group(labels, 3, "random", generator) for _ in range(3000)])
    assert np.all(np.diff(rows) > 0)
    assert chisquare(np.bincount(rows.ravel()), np.full(10, 900)).pvalue > ENOUGH


def test_a_step_holds_what_it_says() -> None:
    table = shop()
    sampler = RankingSampler(table, matching_batch=20, groups=6, group_size=8, seed=3)
    assert sampler.steps_per_epoch == 30
    drawn = steps(sampler)
    assert len(drawn) == 30
    for step in drawn:
        assert len(set(step.matching_exhibitions.tolist())) == 20
        for number, product in zip(step.matching_exhibitions, step.matching_products, strict=True):
            assert product in table.exhibitions[number].products
        assert step.augment.shape == (20,)
        assert len(set(step.ranking_exhibitions.tolist())) == 6
        assert (step.ranking_products.shape, step.ranking_labels.shape) == ((6, 8), (6, 8))
        for place, number in enumerate(step.ranking_exhibitions):
            known = dict(zip(table.exhibitions[number].products, table.exhibitions[number].labels, strict=True))
            assert [known[p] for p in step.ranking_products[place]] == step.ranking_labels[place].tolist()
            assert np.all(np.diff(step.ranking_labels[place]) <= 0)
    ranked = np.bincount(np.concatenate([step.ranking_exhibitions for step in drawn]), minlength=30)
    assert ranked.tolist() == [6] * 30  # each exhibition equally often
    matched = np.bincount(np.concatenate([step.matching_exhibitions for step in drawn]), minlength=30)
    assert matched.tolist() == [20] * 30
    assert np.mean([step.augment.mean() for step in drawn]) == pytest.approx(0.5, abs=0.1)


def test_one_topic_per_step_as_published() -> None:
    drawn = steps(RankingSampler(shop(), matching_batch=4, groups=6, group_size=8, same_topic_per_step=True))
    topics = [set(step.ranking_exhibitions.tolist()) for step in drawn]
    assert all(len(topic) == 1 for topic in topics)
    assert set().union(*topics) == set(range(30))
    assert len({tuple(row) for row in drawn[0].ranking_products.tolist()}) > 1  # samples of their own


def test_matching_products() -> None:
    table = data(exhibition("a", [1, 1, 1, 97]), exhibition("b", [5, 0, 0, 0], first=4))
    options = {"matching_batch": 2, "groups": 0}

    def drawn(**more: str) -> np.ndarray:
        sampler = RankingSampler(table, **options, **more)  # type: ignore[arg-type]
        found = [s for epoch in range(1000) for s in sampler.epoch(epoch)]
        return np.array([s.matching_products[np.argsort(s.matching_exhibitions)] for s in found])

    assert np.unique(drawn(matching_sampling="sequential"), axis=0).tolist() == [[3, 4]]
    assert np.unique(drawn(matching_sampling="weighted"), axis=0).tolist() == [[3, 4]]  # 7 tries take all four
    assert chisquare(np.bincount(drawn()[:, 0], minlength=4), np.full(4, 250)).pvalue > ENOUGH


def test_weighted_matching_takes_the_best_of_seven() -> None:
    """Of 8 equal products and a better one of the same weight to the eye, 7 of 9 draws hold the better one."""
    labels = [1.0] * 8 + [1.0001]
    table = data(exhibition("a", labels), exhibition("b", labels, first=9))
    sampler = RankingSampler(table, matching_batch=2, groups=0, matching_sampling="weighted")
    products = np.concatenate([step.matching_products for epoch in range(1500) for step in sampler.epoch(epoch)])
    assert np.mean(products % 9 == 8) == pytest.approx(7 / 9, abs=0.03)


def test_epochs_are_the_same_on_every_rank_and_after_a_resume() -> None:
    def drawn(epoch: int, seed: int = 1) -> list[list[int]]:
        sampler = RankingSampler(shop(), matching_batch=8, groups=4, group_size=5, seed=seed)
        return [[*s.matching_products.tolist(), *s.ranking_products.ravel().tolist()] for s in sampler.epoch(epoch)]

    sampler = RankingSampler(shop(), matching_batch=8, groups=4, group_size=5, seed=1)
    next(sampler.epoch(2))  # an epoch that was begun changes no other
    assert [s.matching_products.tolist() for s in sampler.epoch(3)] == [row[:8] for row in drawn(3)]
    assert drawn(3) != drawn(4)
    assert drawn(3) != drawn(3, seed=2)


def test_ranks_share_a_step() -> None:
    step = next(RankingSampler(shop(), matching_batch=8, groups=4, group_size=5, world=2).epoch(0))
    shards = [step.shard(rank, 2) for rank in range(2)]
    for name in ("matching_exhibitions", "matching_products", "augment", "ranking_exhibitions", "ranking_products"):
        whole, parts = getattr(step, name), [getattr(shard, name) for shard in shards]
        assert np.array_equal(np.stack(parts, axis=1).reshape(whole.shape), whole)
    with pytest.raises(UserError, match=r"3 processes cannot share a matching batch of 8 and 4 groups evenly"):
        RankingSampler(shop(), matching_batch=8, groups=4, world=3)


def test_small_shops() -> None:
    with structlog.testing.capture_logs() as logs:
        sampler = RankingSampler(shop(exhibitions=5), groups=8, group_size=5, world=2)
    assert [(entry["log_level"], entry["to"]) for entry in logs] == [("warning", 4)]
    assert sampler.matching_batch == 4
    assert next(sampler.epoch(0)).ranking_products.shape == (8, 5)  # five topics, some of them twice
    with structlog.testing.capture_logs():
        alone = RankingSampler(data(exhibition("a", [1, 1]), exhibition("b", [1], first=2)), groups=0)
    step = next(alone.epoch(0))
    assert (len(step.matching_products), step.ranking_products.shape, alone.steps_per_epoch) == (2, (0, 20), 1)
    with pytest.raises(UserError, match=r"No exhibition has 20 products with two distinct labels"):
        RankingSampler(data(exhibition("equal", [1] * 30), exhibition("small", [1, 0])))
    with pytest.raises(UserError, match=r"1 exhibitions are too few for topic matching"):
        RankingSampler(data(exhibition("a", [1, 0])), groups=0)


def test_what_a_step_costs_depends_on_the_groups_alone() -> None:
    """Not on the matching batch, nor on how many exhibitions and products there are: no loop goes over them."""

    def calls(sampler: RankingSampler) -> int:
        epoch = sampler.epoch(0)
        next(epoch)
        profile = cProfile.Profile()
        profile.runcall(next, epoch)
        return sum(entry.callcount for entry in profile.getstats())

    few = RankingSampler(shop(exhibitions=30, products=25), matching_batch=10)
    many = RankingSampler(shop(exhibitions=600, products=50), matching_batch=512)
    assert (few.matching_batch, many.matching_batch, few.groups, many.groups) == (10, 512, 12, 12)
    assert calls(many) < calls(few) + 200  # a new shuffle now and then costs some tens
