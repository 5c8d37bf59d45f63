"""Recall, matching accuracy and linear evaluation against values by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from shopvision.evaluation.retrieval_metrics import (
    linear_evaluation,
    matching_accuracy,
    recall_at,
)


def test_recall_by_hand() -> None:
    gallery = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8]], np.float32)
    queries = np.array([[1, 0.1], [0, 1], [0.6, 0.8], [0, -1]], np.float32)
    hits = recall_at(queries, gallery, np.array([0, 2, 3, 1]), (1, 2, 3))
    # first: nearest. second: (0, 1) is nearer, two share ranks 2 and 3. third: two share ranks 1 and 2. last: farthest.
    np.testing.assert_allclose(hits, [[1, 1, 1], [0, 0.5, 1], [0.5, 1, 1], [0, 0, 0]])


def test_equal_vectors_find_each_other_at_random() -> None:
    same = np.ones((2000, 3), np.float32)
    np.testing.assert_allclose(recall_at(same, same, np.arange(2000), (1, 10)), [[1 / 2000, 10 / 2000]] * 2000)
    forward, backward, expected = matching_accuracy(same, same, 300)
    np.testing.assert_allclose(forward, expected)
    np.testing.assert_allclose(backward, expected)
    assert sorted(set(np.round(1 / expected).astype(int))) == [285, 286]  # seven batches, none larger than 300


def test_matching_accuracy_knows_the_two_directions() -> None:
    topics = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    images = np.array([[1, 0], [0, 1], [0.9, 0.2]], np.float32)
    forward, backward, expected = matching_accuracy(topics, images, 8)
    np.testing.assert_allclose(forward, [1, 1, 0])  # the third topic is nearer to the first image
    np.testing.assert_allclose(backward, [0.5, 1, 0.5])  # two equal topics share first place
    np.testing.assert_allclose(expected, 1 / 3)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("regularisation", [0.3, 50.0])
def test_linear_evaluation_is_the_softmax_of_its_definition(count: int, regularisation: float) -> None:
    generator = np.random.default_rng(count)
    classes = np.repeat(np.arange(count), 40)
    vectors = (generator.normal(size=(count, 6))[classes] + generator.normal(size=(40 * count, 6))).astype(np.float32)
    found = linear_evaluation(vectors, np.array([f"c{one}" for one in classes]), regularisation=regularisation)
    assert found is not None
    fitted = np.isnan(found.correct)
    scaled = vectors - vectors[fitted].mean(axis=0)
    scaled = np.column_stack([scaled / np.sqrt((scaled[fitted] ** 2).mean()), np.ones(len(scaled))])

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(7, count)
        logits = scaled[fitted] @ weights
        right = logits[np.arange(len(logits)), classes[fitted]]
        return float((logsumexp(logits, axis=1) - right).sum() + regularisation / 2 * (weights[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(7 * count), method="BFGS", options={"gtol": 1e-3}).x.reshape(7, count)
    expected = (scaled[~fitted] @ best).argmax(axis=1) == classes[~fitted]
    np.testing.assert_array_equal(found.correct[~fitted] == 1, expected)


def test_linear_evaluation_reads_what_is_there_and_only_that() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat([f"c{index}" for index in range(8)], 50)
    centres = np.repeat(generator.normal(size=(8, 16)), 50, axis=0)
    vectors = (centres + 0.3 * generator.normal(size=(400, 16))).astype(np.float32)
    clear = linear_evaluation(vectors, labels)
    assert clear is not None
    assert clear.classes == 8
    assert np.isfinite(clear.correct).sum() == 8 * 15
    assert np.nanmean(clear.correct) > 0.98
    noise = linear_evaluation(generator.normal(size=(400, 16)).astype(np.float32), labels)
    assert noise is not None
    assert np.nanmean(noise.correct) < 0.3


def test_a_class_of_one_is_left_out_and_one_class_tells_nothing() -> None:
    vectors = np.eye(5, dtype=np.float32)
    found = linear_evaluation(vectors, np.array(["a", "a", "b", "b", "c"]))
    assert found is not None
    assert found.classes == 2
    assert np.isnan(found.correct[4])
    assert linear_evaluation(vectors, np.array(["a", "a", "a", "b", "c"])) is None
