"""Calibration against scikit-learn, thresholds against their promise."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from shopvision.errors import UserError
from shopvision.evaluation.calibration import (
    apply,
    check_thresholds,
    choose_thresholds,
    fit_isotonic,
    fit_temperature,
    verdicts,
    wilson_interval,
)
from shopvision.evaluation.pair_metrics import best_f1_threshold, log_loss, roc_auc
from shopvision.evaluation.reliability import reliability


def overconfident(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds three times too large and shifted, and labels drawn from the true ones."""
    generator = np.random.default_rng(seed)
    true = generator.normal(-1, 1.5, count)
    return (3 * true + 2).astype(np.float32), (generator.random(count) < expit(true)).astype(np.int8)


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose decision function is its only feature."""

    def fit(self, *_: Any) -> Given:
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return (features[:, 0] > 0).astype(int)

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]


def test_temperature_is_platts_scaling() -> None:
    logits, labels = overconfident(400, 0)
    calibration = fit_temperature(logits, labels)
    features = logits[:, None].astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        platt = CalibratedClassifierCV(FrozenEstimator(Given().fit()), method="sigmoid", ensemble=False)
        expected = platt.fit(features, labels).predict_proba(features)[:, 1]
    np.testing.assert_allclose(apply(calibration, logits), expected, atol=2e-4)
    assert json.loads(json.dumps(calibration)) == calibration


def test_temperature_finds_the_truth_and_mends_the_probabilities() -> None:
    logits, labels = overconfident(20_000, 1)
    calibration = fit_temperature(logits, labels)
    assert calibration["scale"] == pytest.approx(1 / 3, rel=0.03)
    assert calibration["shift"] == pytest.approx(-2 / 3, abs=0.05)
    plain, mended = apply({"method": "none"}, logits), apply(calibration, logits)
    assert reliability(plain, labels).ece > 0.1
    assert reliability(mended, labels).ece < 0.02
    assert log_loss(mended, labels) < log_loss(plain, labels)
    assert roc_auc(mended, labels) == pytest.approx(roc_auc(plain, labels), abs=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e5])
def test_the_unit_of_the_logits_does_not_matter(factor: float) -> None:
    logits, labels = overconfident(300, 2)
    expected = apply(fit_temperature(logits, labels), logits)
    scaled = logits.astype(np.float64) * factor + 7 * factor
    np.testing.assert_allclose(apply(fit_temperature(scaled, labels), scaled), expected, atol=1e-5)


def test_perfect_separation_stays_finite_and_a_bad_model_keeps_its_order() -> None:
    calibration = fit_temperature([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert 0 < calibration["scale"] < 10
    probabilities = apply(fit_temperature([3.0, 2.0, -1.0, -2.0], [0, 0, 1, 1]), [-2.0, 3.0])
    assert probabilities[0] < probabilities[1]
    assert probabilities == pytest.approx([0.5, 0.5], abs=0.01)
    assert np.isfinite(apply(fit_temperature([1.0, 1.0, 1.0], [0, 1, 1]), [1.0])).all()


def test_isotonic_is_scikit_learns() -> None:
    logits, labels = overconfident(500, 3)
    logits = np.round(logits, 1)
    calibration = fit_isotonic(logits, labels)
    model = IsotonicRegression(y_min=1 / 502, y_max=501 / 502, out_of_bounds="clip").fit(logits, labels)
    grid = np.linspace(-20, 20, 999)
    np.testing.assert_allclose(apply(calibration, grid), model.predict(grid.astype(np.float32)), atol=1e-5)
    assert json.loads(json.dumps(calibration)) == calibration
    assert len(calibration["logits"]) < 100


def test_nothing_is_certain_even_in_float32() -> None:
    extreme = np.array([-1e6, -80.0, 80.0, 1e6])
    isotonic = {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.0, 1.0]}
    for calibration in ({"method": "none"}, {"method": "temperature", "scale": 2.0, "shift": 0.0}, isotonic):
        probabilities = apply(calibration, extreme).astype(np.float32)
        assert (probabilities > 0).all()
        assert (probabilities < 1).all()
        assert set(verdicts(probabilities, same=1.0, different=0.0)) == {"review"}


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ({"method": "magic"}, "There is no calibration 'magic'"),
        ({}, "is not whole"),
        ({"method": "temperature", "scale": 1.0}, "is not whole"),
        ({"method": "isotonic", "logits": [1.0], "probabilities": []}, "is not whole"),
    ],
)
def test_a_broken_calibration_is_named(calibration: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        apply(calibration, [0.0])


def test_wilson_is_scipys() -> None:
    for hits, count in ((0, 5), (3, 7), (95, 100), (100, 100)):
        expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        assert np.ravel(wilson_interval(hits, count)) == pytest.approx([expected.low, expected.high])
    assert np.ravel(wilson_interval(0, 0)).tolist() == [0.0, 1.0]


def calibrated(count: int, seed: int, sharpness: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = expit(generator.normal(-2, sharpness, count))
    return np.clip(probabilities, 1e-7, 1 - 1e-7), (generator.random(count) < probabilities).astype(int)


def brute_force(probabilities: np.ndarray, labels: np.ndarray, decision: float) -> tuple[float, float]:
    """Lowest score whose pairs at or above keep the promise, and highest whose pairs below do."""
    same, different = np.inf, -np.inf
    for score in np.unique(probabilities):
        above, below = labels[probabilities >= score], labels[probabilities < score]
        if (
            score >= decision
            and scipy.stats.binomtest(int(above.sum()), len(above)).proportion_ci(0.95, "wilson").low >= 0.95
        ):
            same = min(same, score)
        if (
            probabilities[probabilities < score].max(initial=0) <= decision
            and len(below)
            and scipy.stats.binomtest(int(below.sum()), len(below)).proportion_ci(0.95, "wilson").high <= 0.02
        ):
            different = max(different, score)
    return same, different


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_keep_their_promise_and_are_the_widest_that_do(seed: int) -> None:
    probabilities, labels = calibrated(2500, seed)
    probabilities = np.clip(np.round(probabilities, 2), 0.001, 0.999)
    chosen = choose_thresholds(probabilities, labels)
    assert chosen["decision"] == best_f1_threshold(probabilities, labels)[0]
    same, different = brute_force(probabilities, labels, chosen["decision"])
    assert probabilities[probabilities >= chosen["same"]].min() == same
    assert probabilities[probabilities > chosen["different"]].min() == different
    assert chosen["different"] < chosen["decision"] < chosen["same"]
    assert check_thresholds(chosen) == chosen


def test_the_promise_holds_on_other_pairs() -> None:
    kept = []
    for seed in range(40):
        chosen = choose_thresholds(*calibrated(1500, seed))
        probabilities, labels = calibrated(20_000, 1000 + seed)
        kept.append(labels[probabilities >= chosen["same"]].mean() >= 0.95)
    # A chance of 2.5 % to miss at one threshold; choosing among many adds some.
    assert np.mean(kept) > 0.85


def test_a_wish_for_more_sends_more_to_review() -> None:
    probabilities, labels = calibrated(2000, 5)
    loose = choose_thresholds(probabilities, labels, same_precision=0.8, different_positives=0.1)
    strict = choose_thresholds(probabilities, labels, same_precision=0.97, different_positives=0.01)
    assert strict["different"] < loose["different"] <= loose["decision"] <= loose["same"] < strict["same"]
    assert strict["decision"] == loose["decision"]


def test_a_perfect_model_with_enough_pairs_leaves_only_the_gap_to_review_and_with_few_everything() -> None:
    """95 % takes 73 pairs without a mistake, 2 % takes 189: n / (n + 1.96^2) and 1.96^2 / (n + 1.96^2)."""
    for positives, negatives, same, different in ((73, 189, 0.9, 0.1), (72, 188, 1.0, 0.0), (1, 1, 1.0, 0.0)):
        probabilities = np.repeat([0.9, 0.1], [positives, negatives])
        chosen = choose_thresholds(probabilities, np.repeat([1, 0], [positives, negatives]))
        assert chosen == {"same": same, "different": different, "decision": 0.5}


def test_a_model_that_knows_nothing_decides_nothing() -> None:
    generator = np.random.default_rng(6)
    chosen = choose_thresholds(generator.random(500), generator.random(500) < 0.3)
    assert (chosen["same"], chosen["different"]) == (1.0, 0.0)
    chosen = choose_thresholds(np.full(50, 0.3), np.arange(50) % 2)
    assert chosen == {"same": 1.0, "different": 0.0, "decision": 0.3}


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_labels_of_one_kind_teach_nothing(labels: list[int]) -> None:
    for fit in (fit_temperature, fit_isotonic, choose_thresholds):
        with pytest.raises(UserError, match=r"All 2 validation pairs are .*give pairs of both labels"):
            fit([0.1, 0.2], labels)


def test_a_wish_that_is_no_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"same_precision is 95: give a share from 0 to 1"):
        choose_thresholds([0.1, 0.9], [0, 1], same_precision=95)


def test_verdicts_at_the_borders() -> None:
    found = verdicts([1.0, 0.75, 0.74, 0.26, 0.25, 0.0, np.nan], same=0.75, different=0.25)
    assert found.tolist() == ["same", "same", "review", "review", "different", "different", "review"]
    assert verdicts([0.5, 0.4], same=0.5, different=0.5).tolist() == ["same", "different"]


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"same": 0.2, "different": 0.8, "decision": 0.5}, "different 0.8 and decision 0.5 and same 0.2 are out of"),
        ({"same": 0.4, "different": 0.1, "decision": 0.5}, "out of order"),
        ({"same": 0.9, "different": 0.1}, "The threshold 'decision' is missing"),
        ({"same": 1.9, "different": 0.1, "decision": 0.5}, "The threshold 'same' is 1.9: give a number from 0 to 1"),
        ({"same": float("nan"), "different": 0.1, "decision": 0.5}, "The threshold 'same' is nan"),
    ],
)  # fmt: skip
def test_thresholds_out_of_order_are_refused(thresholds: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_thresholds(thresholds)
