"""Model soups by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shopvision.errors import JobError, UserError
from shopvision.matching.fitting.soups import greedy_soup, uniform_soup


def ingredient(weight: float, steps: int = 0) -> dict[str, Tensor]:
    return {"weight": torch.tensor([weight, 2 * weight]), "steps": torch.tensor(steps)}


def test_a_uniform_soup_is_the_mean_of_weights_and_keeps_the_first_counters() -> None:
    soup = uniform_soup([ingredient(1.0, 7), ingredient(2.0, 8), ingredient(6.0, 9)])
    assert soup["weight"].tolist() == [3.0, 6.0]
    assert soup["weight"].dtype == torch.float32
    assert soup["steps"] == 7


def test_half_precision_is_summed_without_overflow() -> None:
    largest = {"w": torch.tensor([60000.0], dtype=torch.float16)}
    assert uniform_soup([largest, largest, largest])["w"] == 60000.0


def test_a_soup_shares_no_memory_with_its_ingredients() -> None:
    only = ingredient(1.0)
    soup = uniform_soup([only])
    soup["weight"] += 1
    soup["steps"] += 1
    assert only["weight"].tolist() == [1.0, 2.0]
    assert only["steps"] == 0


def test_a_greedy_soup_keeps_what_does_not_harm() -> None:
    """Scores are nearness to 3: of 1, 8, 2.5 and 4 the order is 2.5 (0.5), 4 (1), 1 (2), 8 (5).

    2.5 and 4 make 3.25 (0.25): kept; with 1 they make 2.5 (0.5): not; with 8 4.83 (1.83): not.
    """
    ingredients = [ingredient(weight) for weight in (1.0, 8.0, 2.5, 4.0)]
    soup, kept = greedy_soup(ingredients, lambda model: -abs(model["weight"][0].item() - 3))
    assert kept == [2, 3]
    assert soup["weight"].tolist() == [3.25, 6.5]


def test_an_equal_score_is_kept_and_the_earlier_of_equals_comes_first() -> None:
    _, kept = greedy_soup([ingredient(2.0), ingredient(2.0), ingredient(9.0)], lambda model: -model["weight"][0].item())
    assert kept == [0, 1]


@pytest.mark.parametrize("order", [(1.0, 5.0, 2.0), (5.0, 1.0, 2.0), (1.0, 2.0, 5.0)])
def test_a_score_that_is_no_number_never_wins(order: tuple[float, ...]) -> None:
    """Weights above 3 score NaN, alone and mixed; of the others the smaller is the better one."""

    def score(model: dict[str, Tensor]) -> float:
        weight = model["weight"][0].item()
        return math.nan if weight > 3 else -weight

    soup, kept = greedy_soup([ingredient(weight) for weight in order], score)
    assert (soup["weight"][0].item(), kept) == (1.0, [order.index(1.0)])
    with pytest.raises(JobError, match="No ingredient of the soup has a finite score"):
        greedy_soup([ingredient(1.0)], lambda _: math.nan)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"weight": torch.zeros(2)}, "Ingredient 2 differs from the first in 'steps'"),
        (ingredient(1.0) | {"weight": torch.zeros(3)}, "Ingredient 2 differs from the first in 'weight'"),
    ],
)
def test_ingredients_of_different_kinds_are_refused(second: dict[str, Tensor], message: str) -> None:
    for make in (uniform_soup, lambda both: greedy_soup(both, lambda _: 0.0)):
        with pytest.raises(UserError, match=message):
            make([ingredient(1.0), second])
        with pytest.raises(UserError, match="at least one ingredient"):
            make([])
