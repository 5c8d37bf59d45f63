"""Losses of pair models against their formulas in numpy float64, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import shopvision.matching.families.losses as losses_module
from shopvision.errors import UserError
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.heads import MetricHead, PairHead
from shopvision.matching.families.losses import (
    LossOptions,
    binary_loss,
    contrastive_loss,
    cosine_loss,
    hinge_loss,
    multiple_negatives_loss,
    two_tower_loss,
)

RNG = np.random.default_rng(2)
U, V = RNG.normal(size=(2, 6, 4))
LABELS = np.array([1, 0, 1, 0, 0, 1])
# The first and the last pair are of one product; the left item of the fourth is that of the third pair's product.
LEFT, RIGHT = np.array([0, 1, 2, 2, 4, 0]), np.array([0, 5, 2, 6, 7, 0])
GROUPS = (torch.from_numpy(LEFT), torch.from_numpy(RIGHT))
STEP = 1e-5
T = {name: torch.from_numpy(array) for name, array in {"u": U, "v": V, "labels": LABELS}.items()}


def metric(similarity: str, loss: str) -> Axes:
    return Axes(interaction="two_tower", head="metric", similarity=similarity, loss=loss)


def test_cross_entropy_of_two_outputs_is_the_binary_loss_of_their_difference() -> None:
    outputs = RNG.normal(size=(6, 2)) * 4
    expected = [math.log(sum(math.exp(z) for z in row)) - row[y] for row, y in zip(outputs, LABELS, strict=True)]
    logits = torch.from_numpy(outputs[:, 1] - outputs[:, 0])
    assert binary_loss(logits, T["labels"]).item() == pytest.approx(np.mean(expected), rel=1e-6)
    plain = nn.functional.cross_entropy(torch.from_numpy(outputs), T["labels"])
    assert binary_loss(logits, T["labels"]).item() == pytest.approx(plain.item(), rel=1e-6)


def test_margin_losses_term_by_term() -> None:
    s = np.array([0.9, 0.5, -0.2, 0.1, -0.7, 0.3])
    tensor = torch.from_numpy(s)
    cosine = [1 - x if y else max(0.0, x - 0.4) for x, y in zip(s, LABELS, strict=True)]
    hinge = [max(0.0, 0.5 - x if y else 0.5 + x) for x, y in zip(s, LABELS, strict=True)]
    d = np.abs(s)
    contrastive = [(x**2 if y else max(0.0, 0.6 - x) ** 2) / 2 for x, y in zip(d, LABELS, strict=True)]
    assert cosine_loss(tensor, T["labels"], 0.4).item() == pytest.approx(np.mean(cosine), rel=1e-12)
    assert hinge_loss(tensor, T["labels"], 0.5).item() == pytest.approx(np.mean(hinge), rel=1e-12)
    assert contrastive_loss(tensor.abs(), T["labels"], 0.6).item() == pytest.approx(np.mean(contrastive), rel=1e-12)


@pytest.mark.parametrize("choice", [
    ("cosine", "cosine"), ("cosine", "contrastive"), ("cosine", "hinge"), ("cosine", "mnr"), ("cosine", "bce"),
    ("inner_product", "bce"), ("inner_product", "hinge"), ("inner_product", "mnr"), ("l1", "contrastive"),
    ("l2", "contrastive"),
])  # fmt: skip
def test_every_loss_brings_same_items_together_and_different_ones_apart(choice: tuple[str, str]) -> None:
    """A step along the gradient must move similarities, and distances, to the right side."""
    axes = metric(*choice)
    head = MetricHead(axes.similarity, learned=axes.loss == "bce").double()
    # Same items at a cosine of 0.3, different ones at 0.8, all short: every margin has something to say.
    cosines = np.where(LABELS, 0.3, 0.8)[:, None]
    ahead = U / np.linalg.norm(U, axis=1, keepdims=True)
    across = V - (V * ahead).sum(1, keepdims=True) * ahead
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    u = torch.from_numpy(0.3 * ahead).requires_grad_()
    v = torch.from_numpy(0.3 * (cosines * ahead + np.sqrt(1 - cosines**2) * across)).requires_grad_()
    loss = two_tower_loss(axes, head, u, v, T["labels"], groups=GROUPS)
    loss.backward()
    with torch.no_grad():
        before, after = head(u, v), head(u - STEP * u.grad, v - STEP * v.grad)
        again = two_tower_loss(axes, head, u - STEP * u.grad, v - STEP * v.grad, T["labels"], groups=GROUPS)
    moved = after - before
    assert again < loss
    assert moved[T["labels"] == 1].sum() > 0
    if axes.loss != "mnr":  # to it a different-pair is one negative among many
        assert moved[T["labels"] == 0].sum() < 0


def expected_mnr(scores: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """One direction, candidate by candidate."""
    terms = []
    for i in np.flatnonzero(LABELS):
        candidates = [j for j in range(len(LABELS)) if j == i or others[j] != own[i]]
        terms.append(math.log(sum(math.exp(scores[i, j]) for j in candidates)) - scores[i, i])
    return float(np.mean(terms))


def test_multiple_negatives_are_all_items_of_the_batch_but_those_of_the_same_product() -> None:
    unit_u, unit_v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (U, V))
    scores = 5.0 * unit_u @ unit_v.T
    expected = (expected_mnr(scores, LEFT, RIGHT) + expected_mnr(scores.T, RIGHT, LEFT)) / 2
    head = MetricHead("cosine", learned=False)
    found = multiple_negatives_loss(head, T["u"], T["v"], T["labels"], groups=GROUPS, scale=5.0)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    by_axes = two_tower_loss(
        metric("cosine", "mnr"), head, T["u"], T["v"], T["labels"], groups=GROUPS, options=LossOptions(scale=5.0)
    )
    assert by_axes.item() == found.item()


def test_a_batch_without_same_pairs_costs_nothing() -> None:
    u = T["u"].clone().requires_grad_()
    head = MetricHead("cosine", learned=False)
    loss = multiple_negatives_loss(head, u, T["v"], torch.zeros(6), groups=GROUPS, scale=20.0)
    loss.backward()
    assert loss.item() == 0
    assert not u.grad.any()


def test_two_processes_together_have_the_gradient_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds half of the pairs; the average of their gradients is that of one process with all pairs."""
    head = MetricHead("cosine", learned=False)
    u = T["u"].clone().requires_grad_()
    whole = multiple_negatives_loss(head, u, T["v"], T["labels"], groups=GROUPS, scale=5.0)
    whole.backward()

    gradient = torch.zeros_like(T["u"])
    for own in (slice(0, 3), slice(3, 6)):
        mine = T["u"][own].clone().requires_grad_()
        gathered = iter([torch.cat([T["u"][: own.start], mine, T["u"][own.stop :]]), T["v"], T["labels"], *GROUPS])
        monkeypatch.setattr(losses_module, "gather_with_local_gradients", lambda _, parts=gathered: next(parts))
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        halves = (part[own] for part in GROUPS)
        loss = multiple_negatives_loss(head, mine, T["v"][own], T["labels"][own], groups=tuple(halves), scale=5.0)
        assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
        loss.backward()
        gradient[own] = mine.grad / 2
    np.testing.assert_allclose(gradient, u.grad, rtol=1e-9, atol=1e-12)


def test_defaults_and_refusals() -> None:
    head = MetricHead("cosine", learned=False)
    s = head.compare(T["u"], T["v"])
    for loss, margin, function, value in (
        ("cosine", 0.4, cosine_loss, s), ("hinge", 0.5, hinge_loss, s), ("contrastive", 0.5, contrastive_loss, 1 - s),
    ):  # fmt: skip
        found = two_tower_loss(metric("cosine", loss), head, T["u"], T["v"], T["labels"])
        assert found.item() == function(value, T["labels"], margin).item()
    with pytest.raises(UserError, match="mnr needs to know which items are one product"):
        two_tower_loss(metric("cosine", "mnr"), head, T["u"], T["v"], T["labels"])


def test_heads_without_a_metric_learn_from_log_odds() -> None:
    axes = Axes(interaction="two_tower", head="interaction", loss="ce")

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = PairHead(8, 3, outputs=2, dropout=0.0)

        def forward(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return self.pair(torch.cat([u, v], 1))

    head = Both().double()
    expected = binary_loss(head(T["u"], T["v"]), T["labels"]).item()
    assert two_tower_loss(axes, head, T["u"], T["v"], T["labels"]).item() == expected
