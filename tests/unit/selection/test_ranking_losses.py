"""Each loss against its formula in numpy float64, and what its gradient must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shopvision.selection.clik.losses import (
    image_ranking_loss,
    listwise_loss,
    pairwise_loss,
    pointwise_loss,
    shares_of_best,
    topic_matching_loss,
    total_loss,
    triplet_loss,
)
from shopvision.training.distributed import gather_with_local_gradients

RNG = np.random.default_rng(7)


def units(*shape: int) -> np.ndarray:
    vectors = RNG.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_topic_matching_is_symmetric_infonce() -> None:
    topics, images, tau = units(7, 5), units(7, 5), 0.07
    logits = topics @ images.T / tau
    expected = -(np.diag(log_softmax(logits)).mean() + np.diag(log_softmax(logits.T)).mean()) / 2
    assert abs(np.diag(log_softmax(logits)).mean() - np.diag(log_softmax(logits.T)).mean()) > 0.01  # both count
    found = topic_matching_loss(torch.from_numpy(topics), torch.from_numpy(images), tau)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_image_ranking_takes_the_first_picture_for_the_right_one() -> None:
    compatibility = RNG.uniform(-1, 1, (4, 6))
    expected = -log_softmax(compatibility / 0.07)[:, 0].mean()
    np.testing.assert_allclose(image_ranking_loss(torch.from_numpy(compatibility)), expected, rtol=1e-12)


def test_listwise_takes_every_group_by_its_own_labels() -> None:
    compatibility = RNG.uniform(-1, 1, (3, 4))
    labels = np.array([[0.3, 0.2, 0.0, 0.0], [0.0, 0.1, 0.1, 0.4], [0.0, 0.0, 0.0, 0.0]])  # of any order
    expected = 0.0
    for scores, of_group in zip(compatibility, labels, strict=True):
        wanted = np.exp(of_group / 0.2) / np.exp(of_group / 0.2).sum()
        expected -= (wanted * log_softmax(scores[None] / 0.07)[0]).sum() / 3
    found = listwise_loss(torch.from_numpy(compatibility), torch.from_numpy(labels), 0.07, 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_listwise_of_one_best_picture_is_the_published_loss() -> None:
    compatibility, labels = torch.from_numpy(RNG.uniform(-1, 1, (4, 6))), torch.eye(6, dtype=torch.float64)[[0] * 4]
    found = listwise_loss(compatibility, labels, label_temperature=0.01)
    np.testing.assert_allclose(found, image_ranking_loss(compatibility), rtol=1e-12)


def test_shares_of_best_make_rates_and_counts_alike() -> None:
    rates = torch.tensor([[0.004, 0.001, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(shares_of_best(rates), [[1, 0.25, 0], [0, 0, 0]])
    np.testing.assert_allclose(shares_of_best(rates * 1e6), shares_of_best(rates))


def test_the_total_weighs_matching_twenty_times() -> None:
    matching, ranking = torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    assert total_loss(matching, ranking).item() == pytest.approx(20 * 0.3 + 1.7, rel=1e-12)
    assert total_loss(matching, ranking, weight=1.5, world_size=4).item() == pytest.approx(
        1.5 * 4 * 0.3 + 1.7, rel=1e-12
    )


def test_triplet() -> None:
    topics, images = units(3, 5), units(3, 6, 5)
    expected = 0.0
    for topic, group in zip(topics, images, strict=True):
        near = math.dist(topic, group[0])
        expected += sum(max(0.0, near - math.dist(topic, other) + 0.2) for other in group[1:])
    assert expected > 0
    np.testing.assert_allclose(triplet_loss(torch.from_numpy(topics), torch.from_numpy(images)), expected, rtol=1e-12)


def test_a_picture_on_the_topic_itself_has_a_gradient() -> None:
    topics = torch.tensor([[1.0, 0.0]], requires_grad=True)
    images = torch.tensor([[[1.0, 0.0], [0.8, 0.6]]])
    triplet_loss(topics, images, margin=2.0).backward()
    assert torch.isfinite(topics.grad).all()


def test_pairwise() -> None:
    scores = RNG.uniform(-1, 1, (3, 4))
    expected = np.mean([math.log1p(math.exp(-(row[0] - other))) for row in scores for other in row[1:]])
    np.testing.assert_allclose(pairwise_loss(torch.from_numpy(scores)), expected, rtol=1e-12)


def test_pointwise() -> None:
    scores = RNG.uniform(-1, 1, (3, 3))
    labels = np.array([[0.004, 0.001, 0.0], [900.0, 300.0, 300.0], [0.0, 0.0, 0.0]])
    shares = [[1, 0.25, 0], [1, 1 / 3, 1 / 3], [0, 0, 0]]
    terms = []
    for score, share in zip(scores.ravel(), np.ravel(shares), strict=True):
        chance = 1 / (1 + math.exp(-score / 0.07))
        terms.append(-share * math.log(chance) - (1 - share) * math.log(1 - chance))
    found = pointwise_loss(torch.from_numpy(scores), torch.from_numpy(labels))
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-9)


def test_labels_of_zeros_have_a_finite_gradient() -> None:
    scores = torch.zeros(1, 3, requires_grad=True)
    pointwise_loss(scores, torch.zeros(1, 3)).backward()
    assert torch.isfinite(scores.grad).all()


def test_mixed_precision_does_not_touch_the_cosines() -> None:
    topics, images = (torch.from_numpy(units(7, 128)).float() for _ in range(2))
    plain = topic_matching_loss(topics, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert topic_matching_loss(topics, images).item() == pytest.approx(plain.item(), rel=1e-6)


def test_alone_there_is_nothing_to_gather() -> None:
    vectors = torch.ones(2, 3)
    assert gather_with_local_gradients(vectors) is vectors
