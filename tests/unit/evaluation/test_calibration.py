"""Calibration against scikit-learn, and verdicts at given thresholds."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from shopvision.errors import UserError
from shopvision.evaluation.calibration import (
    apply,
    check_thresholds,
    fit_isotonic,
    fit_temperature,
    verdicts,
)
from shopvision.evaluation.pair_metrics import log_loss, roc_auc
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


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_labels_of_one_kind_teach_nothing(labels: list[int]) -> None:
    for fit in (fit_temperature, fit_isotonic):
        with pytest.raises(UserError, match=r"All 2 validation pairs are .*give pairs of both labels"):
            fit([0.1, 0.2], labels)


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
