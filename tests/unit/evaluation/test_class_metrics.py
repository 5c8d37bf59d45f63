"""Metrics of classes against scikit-learn, and temperatures against a search by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from shopvision.errors import UserError
from shopvision.evaluation.calibration import fit_softmax_temperature
from shopvision.evaluation.class_metrics import measure_classes


def drawn(count: int = 300, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits that know something of them; class 3 never occurs."""
    generator = np.random.default_rng(4)
    labels = generator.choice(3, count, p=[0.6, 0.3, 0.1])
    logits = generator.normal(0, 1, (count, classes))
    logits[np.arange(count), labels] += 1.2
    return labels, logits


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_metrics_are_those_of_scikit_learn() -> None:
    labels, logits = drawn()
    probabilities = softmax(logits)
    said = probabilities.argmax(axis=1)
    found = measure_classes(labels, probabilities, resamples=200)
    expected = {
        "accuracy": metrics.accuracy_score(labels, said),
        "balanced_accuracy": np.mean([(said[labels == label] == label).mean() for label in range(3)]),
        "macro_f1": metrics.f1_score(labels, said, average="macro"),
        "loss": metrics.log_loss(labels, probabilities, labels=range(4)),
    }
    assert {name: of.value for name, of in found.metrics.items()} == pytest.approx(expected)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, said, labels=range(4)))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, said, labels=range(3), zero_division=0)
    for label in range(3):
        got = [found.by_class[label][name].value for name in ("precision", "recall", "f1")]
        assert got == pytest.approx([precision[label], recall[label], f1[label]])
    assert np.isnan(found.by_class[3]["recall"].value)
    assert found.by_class[3]["precision"].value == 0
    assert (found.most_frequent, found.constant_accuracy.value) == (0, pytest.approx((labels == 0).mean()))
    for of in found.metrics.values():
        assert of.low < of.value < of.high
    # The interval of a share is nearly that of a normal distribution.
    accuracy = found.metrics["accuracy"]
    half = 1.96 * np.sqrt(accuracy.value * (1 - accuracy.value) / 300)
    assert accuracy.high - accuracy.low == pytest.approx(2 * half, rel=0.15)
    assert accuracy.random == pytest.approx(sum(((labels == label).mean()) ** 2 for label in range(3)))


def test_without_resamples_there_are_no_intervals() -> None:
    found = measure_classes([0, 1], [[0.9, 0.1], [0.8, 0.2]], resamples=0)
    assert np.isnan(found.metrics["accuracy"].low)
    assert found.metrics["accuracy"].value == 0.5
    with pytest.raises(UserError, match="0 labels and 0 rows"):
        measure_classes([], np.empty((0, 2)))


def test_the_temperature_makes_the_labels_most_likely() -> None:
    labels, logits = drawn()
    found = fit_softmax_temperature(3 * logits, labels)
    grid = np.linspace(found / 2, 2 * found, 61)
    losses = [-np.log(softmax(3 * logits / one)[np.arange(300), labels]).mean() for one in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], abs=np.diff(grid)[0])
    assert fit_softmax_temperature(logits, labels) == pytest.approx(found / 3, rel=1e-5)


def test_a_temperature_stays_within_bounds() -> None:
    assert fit_softmax_temperature(np.eye(3), [0, 1, 2]) == pytest.approx(0.05, rel=1e-3)
    assert fit_softmax_temperature(np.eye(3), [1, 2, 0]) == pytest.approx(20, rel=1e-3)
    with pytest.raises(UserError, match="give as many, finite ones"):
        fit_softmax_temperature([[np.nan, 0]], [0])
