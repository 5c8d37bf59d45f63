"""The knowledge graph's loss, by hand: distances, margins, relations' rows, and wrong tails."""

from __future__ import annotations

import numpy as np
import torch

from shopvision.graph.losses import TailCorruption, translation_distance, translation_losses
from shopvision.graph.relations import RelationVectors
from shopvision.graph.triples import Triple


def test_distances_and_losses_worked_out_by_hand() -> None:
    heads = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    relations = torch.tensor([[0.0, -1.0], [0.6, -0.8]], dtype=torch.float64)
    tails = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    wrong = torch.tensor([[-1.0, 0.0], [0.8, -0.6]], dtype=torch.float64)
    # (0.6, -0.2) - (0.8, 0.6) = (-0.2, -0.8); (1.6, -0.8) - (0, 1) = (1.6, -1.8)
    right = translation_distance(heads, relations, tails)
    torch.testing.assert_close(right, torch.tensor([1.0, 3.4], dtype=torch.float64))
    # (0.6, -0.2) - (-1, 0) = (1.6, -0.2); (1.6, -0.8) - (0.8, -0.6) = (0.8, -0.2)
    corrupted = translation_distance(heads, relations, wrong)
    torch.testing.assert_close(corrupted, torch.tensor([1.8, 1.0], dtype=torch.float64))
    # max(0, 1 + 1.0 - 1.8) and max(0, 1 + 3.4 - 1.0)
    losses = translation_losses(right, corrupted)
    torch.testing.assert_close(losses, torch.tensor([0.2, 3.4], dtype=torch.float64))
    torch.testing.assert_close(translation_losses(right, corrupted, 0.5)[0].item(), 0.0)
    losses.sum().backward()
    # Signs of the right differences less those of the corrupted ones: (-1, -1) - (1, -1) and (1, -1) - (1, -1).
    torch.testing.assert_close(heads.grad, torch.tensor([[-2.0, 0.0], [0.0, 0.0]], dtype=torch.float64))


def test_relations_start_as_published() -> None:
    torch.manual_seed(0)
    relations = RelationVectors(("has_category", "has_picture", "has_title"), 6)
    table = relations.embedding.weight.detach().double().numpy()
    assert table.shape == (4, 100)
    np.testing.assert_allclose(np.abs(table[:3]).sum(axis=1), 1.0, rtol=1e-5)
    assert np.abs(table[3]).max() <= 0.6
    assert np.abs(table[3]).sum() > 10  # the row that stands for none stays as it was drawn
    layer = relations.projection
    rows = table[[2, 0]] @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(relations(torch.tensor([2, 0])).detach().numpy(), rows, atol=1e-6)


def test_wrong_tails_are_of_the_relation_and_never_true() -> None:
    triples = [
        Triple("a", "has_attribute", "colour red"),
        Triple("a", "has_attribute", "colour blue"),
        Triple("b", "has_attribute", "colour green"),
        Triple("b", "has_picture", "file:///b.jpg"),
        Triple("a", "has_picture", "file:///a.jpg"),
        Triple("a", "of_brand", "Acme"),
    ]
    corruption = TailCorruption(triples)
    assert [corruption.has_wrong_tail(row) for row in range(6)] == [True] * 5 + [False]
    drawn = corruption.draw(np.array([0, 1, 2, 3, 4] * 50), np.random.default_rng(1)).reshape(50, 5)
    assert set(drawn[:, 0]) == set(drawn[:, 1]) == {2}
    assert set(drawn[:, 2]) == {0, 1}
    assert (set(drawn[:, 3]), set(drawn[:, 4])) == ({4}, {3})
    again = corruption.draw(np.array([2] * 50), np.random.default_rng(1))
    assert (again == corruption.draw(np.array([2] * 50), np.random.default_rng(1))).all()


def test_a_gradient_reaches_every_part() -> None:
    torch.manual_seed(1)
    relations = RelationVectors(("of_brand",), 4)
    vectors = [torch.nn.functional.normalize(torch.randn(5, 4)).requires_grad_() for _ in range(3)]
    moved = relations(torch.zeros(5, dtype=torch.long))
    right, wrong = (translation_distance(vectors[0], moved, vectors[k]) for k in (1, 2))
    translation_losses(right, wrong, margin=10.0).mean().backward()
    assert all(vector.grad is not None for vector in vectors[1:])
    assert relations.projection.weight.grad is not None
    assert relations.projection.weight.grad.abs().sum() > 0
