"""The bootstrap interval against scipy's, and its coverage."""

from __future__ import annotations

import numpy as np
import scipy.stats

from shopvision.evaluation.bootstrap import bootstrap_interval


def test_it_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=(200, 2))
    low, high = bootstrap_interval(values, resamples=20_000, seed=1)
    for column in range(2):
        expected = scipy.stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
        ).confidence_interval
        width = expected.high - expected.low
        np.testing.assert_allclose([low[column], high[column]], expected, atol=0.03 * width)


def test_weights_make_it_the_interval_of_a_ratio() -> None:
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 30, 150).astype(float)
    values = generator.random(150)
    low, high = bootstrap_interval(values[:, None], sizes[:, None], resamples=20_000)
    expected = scipy.stats.bootstrap(
        (values, sizes),
        lambda v, w, axis: (v * w).sum(axis) / w.sum(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    np.testing.assert_allclose([low[0], high[0]], expected, atol=0.03 * (expected.high - expected.low))


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    # 400 experiments of 60 units each, true mean 1: experiments are columns, and may share the draws.
    low, high = bootstrap_interval(generator.normal(1, 2, (60, 400)), confidence=0.9)
    assert 0.85 < np.mean((low <= 1) & (high >= 1)) < 0.94


def test_the_seed_decides_and_large_inputs_go_by_blocks() -> None:
    values = np.random.default_rng(6).random((5000, 1))
    one = bootstrap_interval(values, seed=7)
    np.testing.assert_array_equal(one, bootstrap_interval(values, seed=7))
    assert one != bootstrap_interval(values, seed=8)
    spread = 1.96 * values.std() / np.sqrt(5000)
    np.testing.assert_allclose(np.ravel(one), values.mean() + np.array([-spread, spread]), atol=0.1 * spread)


def test_what_is_unknown_is_left_out() -> None:
    values = np.random.default_rng(8).random((40, 3))
    values[10:, 1] = np.nan
    values[1:, 2] = np.nan
    low, high = bootstrap_interval(values)
    assert low[1] < np.nanmean(values[:, 1]) < high[1]
    assert np.isnan([low[2], high[2]]).all()
    assert np.isnan(bootstrap_interval(np.array([[0.5]]))).all()
