"""Heads against their formulas in numpy float64, and what each is for: symmetry, gradients, parity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from shopvision.matching.families.heads import AdditiveHead, InteractionHead, MetricHead, PairHead

RNG = np.random.default_rng(1)
U, V = RNG.normal(size=(2, 5, 6))
Floats = NDArray[np.float64]


def weights(module: nn.Module) -> dict[str, Floats]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def run(head: nn.Module, *inputs: Floats) -> Floats:
    with torch.no_grad():
        return head.double().eval()(*map(torch.from_numpy, inputs)).numpy()


def pair_outputs(w: dict[str, Floats], states: Floats, prefix: str = "") -> Floats:
    hidden = np.tanh(states @ w[f"{prefix}dense.weight"].T + w[f"{prefix}dense.bias"])
    return hidden @ w[f"{prefix}out.weight"].T + w[f"{prefix}out.bias"]


def test_the_pair_head_with_two_outputs_gives_the_log_odds_of_their_softmax() -> None:
    head = PairHead(6, 4, outputs=2, dropout=0.5)
    logits = run(head, U)
    exponentials = np.exp(pair_outputs(weights(head), U))
    np.testing.assert_allclose(sigmoid(logits), exponentials[:, 1] / exponentials.sum(1), rtol=1e-12)


def test_the_pair_head_with_one_output_gives_it_as_it_is() -> None:
    head = PairHead(6, 4, outputs=1, dropout=0.5)
    np.testing.assert_allclose(run(head, U), pair_outputs(weights(head), U)[:, 0], rtol=1e-12)


def test_the_interaction_head_sees_both_vectors_their_difference_and_product_in_both_orders() -> None:
    head = InteractionHead(6, outputs=1, dropout=0.5)
    logits = run(head, U, V)
    w = weights(head)
    one = pair_outputs(w, np.hstack([U, V, np.abs(U - V), U * V]), "pair.")
    other = pair_outputs(w, np.hstack([V, U, np.abs(V - U), V * U]), "pair.")
    np.testing.assert_allclose(logits, ((one + other) / 2)[:, 0], rtol=1e-12)
    np.testing.assert_allclose(run(head, V, U), logits, rtol=1e-12)
    assert np.abs(one - other).max() > 1e-3


def test_the_additive_head_ranks_candidates_alike_for_every_item() -> None:
    """Why it is for parity only: no term joins the two items."""
    head = AdditiveHead(6, outputs=2, dropout=0.5)
    w = weights(head)
    outputs = np.hstack([U, V]) @ w["out.weight"].T + w["out.bias"]
    np.testing.assert_allclose(run(head, U, V), outputs[:, 1] - outputs[:, 0], rtol=1e-6)
    per_item = np.stack([run(head, np.tile(item, (5, 1)), V) for item in U])
    assert (per_item.argsort(1) == per_item[0].argsort()).all()


def cosine() -> Floats:
    return (U * V).sum(1) / np.linalg.norm(U, axis=1) / np.linalg.norm(V, axis=1)


@pytest.mark.parametrize(
    ("similarity", "s", "probability"),
    [
        ("cosine", cosine(), (cosine() + 1) / 2),
        ("inner_product", (U * V).sum(1), sigmoid((U * V).sum(1))),
        ("l1", np.abs(U - V).sum(1), np.exp(-np.abs(U - V).sum(1))),
        ("l2", np.sqrt(((U - V) ** 2).sum(1)), np.exp(-np.sqrt(((U - V) ** 2).sum(1)))),
    ],
)
def test_metric_heads(similarity: str, s: Floats, probability: Floats) -> None:
    head = MetricHead(similarity, learned=False)
    u, v = torch.from_numpy(U), torch.from_numpy(V)
    np.testing.assert_allclose(head.compare(u, v), s, rtol=1e-12)
    np.testing.assert_allclose(sigmoid(run(head, U, V)), probability, rtol=1e-9)
    np.testing.assert_array_equal(run(head, V, U), run(head, U, V))
    if similarity in {"cosine", "inner_product"}:
        np.testing.assert_allclose(head.compare_all(u, v).diagonal(), s, rtol=1e-12)
        np.testing.assert_allclose(head.compare_all(u, v)[1, 3], head.compare(u[1:2], v[3:4])[0], rtol=1e-12)


@pytest.mark.parametrize(("similarity", "scale", "shift"), [("cosine", 10.0, -5.0), ("inner_product", 1.0, 0.0)])
def test_a_learned_scale_starts_at_a_sensible_place(similarity: str, scale: float, shift: float) -> None:
    head = MetricHead(similarity, learned=True)
    s = head.compare(torch.from_numpy(U), torch.from_numpy(V)).numpy()
    np.testing.assert_allclose(run(head, U, V), scale * s + shift, rtol=1e-6)
    assert {name for name, _ in head.named_parameters()} == {"log_scale", "shift"}


@pytest.mark.parametrize("similarity", ["cosine", "inner_product", "l1", "l2"])
def test_equal_and_opposite_vectors_have_finite_log_odds_and_gradients(similarity: str) -> None:
    u = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    logits = MetricHead(similarity, learned=False)(u, torch.tensor([[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]]))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(u.grad).all()
    assert logits[0] > logits[1]


def test_similarities_are_compared_in_float32_under_autocast() -> None:
    u, v = torch.from_numpy(U).float(), torch.from_numpy(V).float()
    head = MetricHead("cosine", learned=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert head.compare_all(u, v).dtype == head(u, v).dtype == torch.float32
        np.testing.assert_allclose(head.compare_all(u, v).diagonal(), cosine(), rtol=1e-5)
