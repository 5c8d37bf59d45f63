"""Measures of pairs against scikit-learn, against counting by hand, and their intervals against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from sklearn.calibration import calibration_curve

from shopvision.errors import UserError
from shopvision.evaluation import pair_measurement
from shopvision.evaluation.bootstrap import resampled
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.pair_metrics import (
    average_precision,
    best_f1_threshold,
    confusion,
    log_loss,
    roc_auc,
    sweep,
)
from shopvision.evaluation.reliability import reliability


def pairs(count: int, seed: int, *, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the labels; rounded to ``steps`` there are many ties."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.2).astype(np.int8)
    probabilities = np.clip(generator.beta(2, 5, count) + 0.3 * labels, 0.001, 0.999)
    return (np.round(probabilities * steps) / steps if steps else probabilities), labels


@pytest.mark.parametrize(("seed", "steps"), [(0, None), (1, 20), (2, 3)])
def test_scikit_learn_and_counting_agree(seed: int, steps: int | None) -> None:
    probabilities, labels = pairs(701, seed, steps=steps)
    distance = probabilities[labels == 1][:, None] - probabilities[labels == 0]
    expected = (np.sign(distance).mean() + 1) / 2
    assert roc_auc(probabilities, labels) == pytest.approx(expected, rel=1e-12)
    at = [probabilities >= score for score in probabilities[labels == 1]]  # each positive at its own cut
    assert average_precision(probabilities, labels) == pytest.approx(
        np.mean([labels[found].mean() for found in at]), rel=1e-12
    )
    assert log_loss(probabilities, labels) == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    for threshold in (0.1, 1 / 3, 0.5, 0.8):
        predicted = probabilities >= threshold
        counts = confusion(probabilities, labels, threshold)
        (tn, fp), (fn, tp) = sklearn.metrics.confusion_matrix(labels, predicted)
        assert counts == type(counts)(tp, fp, fn, tn)
        expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, average="binary")[:3]
        assert (counts.precision, counts.recall, counts.f1) == pytest.approx(expected)
        assert counts.accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))


@pytest.mark.parametrize(("seed", "steps"), [(3, None), (4, 20), (5, 3)])
def test_the_curve_is_scikit_learns_with_thresholds_between_the_scores(seed: int, steps: int | None) -> None:
    probabilities, labels = pairs(501, seed, steps=steps)
    curve = sweep(probabilities, labels)
    precision, recall, scores = sklearn.metrics.precision_recall_curve(labels, probabilities)
    np.testing.assert_allclose(curve.precision, precision[-2::-1])
    np.testing.assert_allclose(curve.recall, recall[-2::-1])
    np.testing.assert_allclose(curve.thresholds[:-1], (scores[1:] + scores[:-1])[::-1] / 2)
    assert curve.thresholds[-1] == probabilities.min()
    f1 = sklearn.metrics.f1_score(np.tile(labels, (len(scores), 1)).T, probabilities[:, None] >= scores, average=None)
    threshold, best = best_f1_threshold(probabilities, labels)
    assert best == pytest.approx(max(f1))
    assert sklearn.metrics.f1_score(labels, probabilities >= threshold) == pytest.approx(best)


def test_the_sweep_misses_no_cut_and_goes_between_none_of_equal_scores() -> None:
    assert best_f1_threshold([0.9, 0.8, 0.3, 0.2], [1, 1, 0, 0]) == (pytest.approx(0.55), 1.0)
    # The two at 0.6 fall together: apart, a cut between them would reach F1 = 1.
    threshold, f1 = best_f1_threshold([0.9, 0.6, 0.6, 0.2], [1, 1, 0, 0])
    assert (threshold, f1) == (pytest.approx(0.4), pytest.approx(0.8))
    # Of equal F1 the stricter threshold: 1 of 1 found, or 2 of 2 with one mistake more would be 0.8 as well.
    assert best_f1_threshold([0.9, 0.7, 0.5], [1, 0, 0])[0] == pytest.approx(0.8)
    assert best_f1_threshold([0.5, 0.5], [1, 0]) == (0.5, pytest.approx(2 / 3))
    shuffled = np.random.default_rng(0).permutation(501)
    probabilities, labels = pairs(501, 6, steps=20)
    assert best_f1_threshold(probabilities[shuffled], labels[shuffled]) == best_f1_threshold(probabilities, labels)


def test_between_neighbouring_floats_the_upper_one_is_the_threshold() -> None:
    low = 0.7
    high = math.nextafter(low, 1)
    assert best_f1_threshold([high, low], [1, 0]) == (high, 1.0)


def test_ece_against_scikit_learns_bins_and_by_hand() -> None:
    probabilities, labels = pairs(900, 7)
    bins = reliability(probabilities, labels)
    observed, expected = calibration_curve(labels, probabilities, n_bins=15, strategy="quantile")
    np.testing.assert_allclose(bins.observed, observed)
    np.testing.assert_allclose(bins.expected, expected)
    assert reliability(probabilities, labels).ece == pytest.approx(np.abs(observed - expected).mean())
    # Bins of 1 and 2: |0.2 - 0| + |(0.6 + 0.9) - 1| over 3 pairs.
    assert reliability([0.9, 0.2, 0.6], [1, 0, 0], bins=2).ece == pytest.approx((0.2 + 0.5) / 3)
    # Fewer pairs than bins: each pair is a bin.
    assert reliability([0.9, 0.2], [1, 0]).ece == pytest.approx(0.15)


def test_ties_across_bins_do_not_depend_on_the_order_of_rows() -> None:
    tied, labels = np.full(40, 0.25), np.repeat([1, 0], [10, 30])
    assert reliability(tied, labels).ece == pytest.approx(0)
    assert reliability(tied, labels[::-1]).ece == pytest.approx(0)


def test_noise_is_what_perfect_calibration_shows() -> None:
    generator = np.random.default_rng(8)
    probabilities = generator.beta(1, 3, 600)
    drawn = [reliability(probabilities, generator.random(600) < probabilities).ece for _ in range(400)]
    assert reliability(probabilities, np.arange(600) % 2).noise == pytest.approx(np.mean(drawn), rel=0.05)


def test_what_has_no_answer_is_nan() -> None:
    assert math.isnan(roc_auc([0.2, 0.4], [1, 1]))
    assert math.isnan(average_precision([0.2, 0.4], [0, 0]))
    assert math.isnan(confusion([0.2, 0.4], [1, 0], 0.9).precision)
    assert math.isnan(confusion([0.2, 0.4], [0, 0], 0.3).recall)
    assert math.isnan(confusion([0.2, 0.4], [0, 0], 0.9).f1)
    measured = measure_pairs([0.2, 0.4], [0, 0], 0.9, resamples=10)
    unknown = {name for name, metric in measured.items() if math.isnan(metric.value)}
    assert unknown == {"precision", "recall", "f1", "roc_auc", "average_precision"}
    assert measured["recall"].as_dict()["value"] is None


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        ([], [], "0 probabilities and 0 labels"),
        ([0.1, 0.2], [1], "2 probabilities and 1 labels"),
        ([0.1, math.nan], [1, 0], "Pair 1 has a probability that is not a finite number"),
        ([0.1, 0.2], [1, -1], "Pair 1 has the label -1"),
    ],
)
def test_what_cannot_be_measured_is_named(probabilities: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        roc_auc(probabilities, labels)


def test_a_threshold_needs_positives() -> None:
    with pytest.raises(UserError, match="None of 2 pairs is the same item"):
        best_f1_threshold([0.1, 0.2], [0, 0])


def test_measured_values_are_those_of_the_functions_and_intervals_those_of_a_loop() -> None:
    probabilities, labels = pairs(300, 9, steps=50)
    measured = measure_pairs(probabilities, labels, 0.4, resamples=3000, seed=1)
    functions = {
        "precision": lambda p, y: confusion(p, y, 0.4).precision,
        "recall": lambda p, y: confusion(p, y, 0.4).recall,
        "f1": lambda p, y: confusion(p, y, 0.4).f1,
        "accuracy": lambda p, y: confusion(p, y, 0.4).accuracy,
        "roc_auc": lambda p, y: sklearn.metrics.roc_auc_score(y, p),
        "average_precision": lambda p, y: sklearn.metrics.average_precision_score(y, p),
        "brier": lambda p, y: sklearn.metrics.brier_score_loss(y, p),
        "log_loss": log_loss,
    }
    generator = np.random.default_rng(10)
    rows = [generator.integers(0, 300, 300) for _ in range(250)]
    for name, function in functions.items():
        assert measured[name].value == pytest.approx(function(probabilities, labels)), name
        expected = np.quantile([function(probabilities[row], labels[row]) for row in rows], [0.025, 0.975])
        low, high = measured[name].low, measured[name].high
        np.testing.assert_allclose([low, high], expected, atol=0.15 * (high - low), err_msg=name)
    assert list(measured) == [*list(functions)[:6], "ece", "brier", "log_loss"]
    assert measured["ece"].value == pytest.approx(reliability(probabilities, labels).ece)
    assert measured["precision"].units == (probabilities >= 0.4).sum()
    assert measured["recall"].units == labels.sum()


def test_chance_is_a_guess_that_finds_as_many() -> None:
    probabilities, labels = pairs(200, 11)
    measured = measure_pairs(probabilities, labels, 0.4, resamples=0)
    generator = np.random.default_rng(12)
    guesses = [confusion(generator.permutation(probabilities), labels, 0.4) for _ in range(1500)]
    for name in ("precision", "recall", "f1", "accuracy"):
        assert measured[name].random == pytest.approx(np.mean([getattr(one, name) for one in guesses]), rel=0.03)
        assert math.isnan(measured[name].low)
    constant = np.full(200, labels.mean())
    assert measured["brier"].random == pytest.approx(sklearn.metrics.brier_score_loss(labels, constant))
    assert measured["log_loss"].random == pytest.approx(log_loss(constant, labels))


def test_draws_of_the_bootstrap_are_scikit_learns_with_weights() -> None:
    probabilities, labels = pairs(120, 13, steps=20)
    drawn = next(resampled(120, resamples=5, seed=3))
    ours = pair_measurement._ranking(drawn, *pair_measurement._tied(probabilities, labels == 1))
    for row, weights in zip(ours, drawn, strict=True):
        given = {"y_true": labels, "y_score": probabilities, "sample_weight": weights}
        expected = sklearn.metrics.roc_auc_score(**given), sklearn.metrics.average_precision_score(**given)
        np.testing.assert_allclose(row, expected, rtol=1e-12)
