"""Losses of encoders against numbers worked out by hand, and in numpy with float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shopvision.fashion.encoding.losses import triplet_loss
from shopvision.training import contrastive
from shopvision.training.contrastive import PairVectors, contrastive_loss
from shopvision.training.gradient_cache import GradientCache, micro_batches

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def pairs(
    anchors: list[list[float]], positives: list[list[float]], products: list[int], pictures: list[int] | None = None
) -> PairVectors:
    return PairVectors(
        torch.tensor(anchors, dtype=torch.float64),
        torch.tensor(positives, dtype=torch.float64),
        torch.tensor(products),
        torch.tensor(pictures if pictures is not None else range(len(products))),
    )


def test_infonce_by_hand() -> None:
    """Cosines [[1, -1], [0, 0]] over a temperature of 1; from the other side the columns [1, 0] and [-1, 0]."""
    given = pairs([EAST, NORTH], [EAST, WEST], [1, 2])
    forward = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert contrastive_loss(given, 1.0, both_directions=False).item() == pytest.approx(forward, abs=1e-12)
    backward = (math.log(1 + math.exp(-1)) + math.log(math.exp(-1) + 1)) / 2
    assert contrastive_loss(given, 1.0).item() == pytest.approx((forward + backward) / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("products", "pictures", "masked"),
    [
        ([1, 1, 2], [1, 2, 3], {(0, 1), (1, 0)}),  # one product twice
        ([1, 2, 3], [7, 8, 7], {(0, 2), (2, 0)}),  # one thumbnail under two products
        ([1, 1, 2], [7, 8, 7], {(0, 1), (1, 0), (0, 2), (2, 0)}),
    ],
)
def test_what_may_show_the_same_is_no_negative(
    products: list[int], pictures: list[int], masked: set[tuple[int, int]]
) -> None:
    generator = torch.Generator().manual_seed(3)
    anchors, positives = (
        functional.normalize(torch.randn(3, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    )
    given = PairVectors(anchors, positives, torch.tensor(products), torch.tensor(pictures))
    scores = np.exp(anchors.numpy() @ positives.numpy().T / 0.07)
    expected = []
    for matrix in (scores, scores.T):
        for row in range(3):
            kept = [matrix[row, column] for column in range(3) if (row, column) not in masked]
            expected.append(-math.log(matrix[row, row] / sum(kept)))
    assert contrastive_loss(given, 0.07).item() == pytest.approx(np.mean(expected), abs=1e-10)
    assert contrastive_loss(given, 0.07, both_directions=False).item() == pytest.approx(
        np.mean(expected[:3]), abs=1e-10
    )


def test_triplets_take_the_next_pair_that_shows_something_else() -> None:
    """Anchor 0: |a - p| = 0, its next pair is of the same product, the one behind it is at distance sqrt 2."""
    given = pairs([EAST, EAST, NORTH], [EAST, NORTH, NORTH], [1, 1, 2])
    far = math.sqrt(2)
    # 0: max(0, 0 - sqrt 2 + 2); 1: next is pair 2 at sqrt 2: sqrt 2 - sqrt 2 + 2; 2: next is pair 0 at sqrt 2.
    assert triplet_loss(given, 2.0).item() == pytest.approx(((2 - far) + 2 + (2 - far)) / 3, abs=1e-12)
    assert triplet_loss(given, 0.2).item() == pytest.approx(0.2 / 3, abs=1e-12)


def test_a_step_of_one_product_teaches_nothing_by_triplets() -> None:
    given = pairs([EAST, NORTH], [NORTH, EAST], [1, 1])
    assert triplet_loss(given, 0.2).item() == 0.0


def test_in_batch_recall_counts_no_masked_pair() -> None:
    given = pairs([EAST, EAST, NORTH], [NORTH, EAST, NORTH], [1, 1, 2])
    # Anchor 0 would find pair 1, which is of its product and not counted; of equal ones the first counts.
    assert given.found().tolist() == [True, True, False]
    other = pairs([EAST, EAST, NORTH], [NORTH, EAST, NORTH], [1, 3, 2])
    assert other.found().tolist() == [False, True, False]


def step(weights: Tensor, temperature: Tensor, micro: int | None) -> None:
    """Gradients of one step of a linear encoder."""
    generator = torch.Generator().manual_seed(5)
    anchors, positives = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    cache = GradientCache()

    def encode(part: Tensor) -> Tensor:
        return functional.normalize(part @ weights, dim=1)

    rows = micro_batches(6, micro)
    products = torch.tensor([1, 2, 3, 1, 4, 5])
    given = PairVectors(
        cache.embed(encode, [anchors[part] for part in rows]),
        cache.embed(encode, [positives[part] for part in rows]),
        products,
        torch.arange(6),
    )
    cache.backward(contrastive_loss(given, temperature.exp()))


def test_micro_batches_have_the_gradient_of_the_whole_step() -> None:
    gradients = []
    for micro in (None, 4, 1):
        weights = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3).requires_grad_()
        temperature = torch.tensor(math.log(0.1), dtype=torch.float64, requires_grad=True)
        step(weights, temperature, micro)
        assert weights.grad is not None
        assert temperature.grad is not None
        gradients.append((weights.grad, temperature.grad))
    for weight, scalar in gradients[1:]:
        torch.testing.assert_close(weight, gradients[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(scalar, gradients[0][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_the_average_over_processes_is_the_gradient_of_one(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gathering does between real processes is shown for plan rankers; here each of two stands in for itself."""
    generator = torch.Generator().manual_seed(7)
    everything = [
        functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    ]
    numbers = [torch.tensor([1, 2, 3, 1, 4, 5]), torch.tensor([1, 2, 3, 4, 5, 2])]

    def gradients(rows: slice) -> list[Tensor]:
        """Of the vectors of all pairs and of the temperature, as the process with these rows has them."""
        leaves = [vectors.clone().requires_grad_() for vectors in everything]
        temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        given = PairVectors(*(leaf[rows] for leaf in leaves), *(number[rows] for number in numbers))
        of = contrastive_loss(given, temperature) if loss == "contrastive" else triplet_loss(given, 0.5)
        of.backward()
        found = [*(leaf.grad for leaf in leaves), temperature.grad]
        return [torch.zeros(()).double() if one is None else one for one in found]

    alone = gradients(slice(None))
    shares = []
    for rank in range(2):
        rows = slice(3 * rank, 3 * rank + 3)
        others = iter([*everything, *numbers])

        def gather(own: Tensor, rows: slice = rows, others: Iterator[Tensor] = others) -> Tensor:
            whole = next(others)
            return torch.cat([whole[: rows.start], own, whole[rows.stop :]])

        with monkeypatch.context() as patch:
            patch.setattr(contrastive, "gather_with_local_gradients", gather)
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_world_size", lambda: 2)
            shares.append(gradients(rows))
    for one, parts in zip(alone, zip(*shares, strict=True), strict=True):
        torch.testing.assert_close(sum(parts) / 2, one, rtol=0, atol=1e-12)
