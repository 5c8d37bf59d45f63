"""Recall, matching accuracy and linear evaluation against values by hand and scikit-learn."""

from __future__ import annotations

import numpy as np

from shopvision.evaluation.retrieval_metrics import (
    fit_logistic_regression,
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


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 5))
    classes = (features @ generator.normal(size=(5, 4)) + generator.gumbel(size=(300, 4))).argmax(axis=1)
    ours = fit_logistic_regression(features, classes, 4, regularisation=2.0)
    theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000).fit(features, classes)
    np.testing.assert_allclose(ours[:-1].T, theirs.coef_, atol=2e-3)
    probabilities = np.exp(features @ ours[:-1] + ours[-1])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(features), atol=1e-3)


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
