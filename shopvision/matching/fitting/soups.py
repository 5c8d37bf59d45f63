"""Model soups: the average of several fine-tuned models' weights as one model.

After Wortsman et al., "Model soups", 2022. An ingredient is a dict of tensors, as ``state_dict`` gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from shopvision.errors import JobError, UserError


def uniform_soup(ingredients: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The arithmetic mean of every floating-point tensor, summed in float64; all others are the first ingredient's.

    Counters and position numbers have no mean.

    Raises:
        UserError: no ingredients, or they differ in names or shapes.
    """
    _check(ingredients)
    return {
        name: torch.stack([other[name].double() for other in ingredients]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in ingredients[0].items()
    }


def _check(ingredients: Sequence[Mapping[str, Tensor]]) -> None:
    if not ingredients:
        raise UserError("A soup needs at least one ingredient.")
    first = ingredients[0]
    for number, other in enumerate(ingredients[1:], 2):
        odd = sorted(first.keys() ^ other.keys()) or [name for name in first if first[name].shape != other[name].shape]
        if odd:
            raise UserError(f"Ingredient {number} differs from the first in '{odd[0]}': average models of one kind.")


def greedy_soup(
    ingredients: Sequence[Mapping[str, Tensor]], score: Callable[[dict[str, Tensor]], float]
) -> tuple[dict[str, Tensor], list[int]]:
    """The soup of those ingredients that make it no worse, tried from the best to the worst.

    Args:
        ingredients: at least one.
        score: of a model on validation data, e.g. F1 at its best threshold; higher is better. A score that is not
            finite loses against every other one.

    Returns:
        The soup, and the positions of its ingredients in the order they were added. Of equal scores the earlier
        ingredient is tried first. The soup scores at least as well as the best ingredient.

    Raises:
        UserError: see ``uniform_soup``.
        JobError: no ingredient has a finite score.
    """
    _check(ingredients)
    alone = [_finite_or_worst(score(uniform_soup([one]))) for one in ingredients]
    if max(alone) == -math.inf:
        raise JobError("No ingredient of the soup has a finite score: train with lower learning rates, or without one.")
    order = sorted(range(len(ingredients)), key=lambda position: (-alone[position], position))
    kept = order[:1]
    soup = uniform_soup([ingredients[position] for position in kept])
    best = alone[kept[0]]
    for position in order[1:]:
        tried = uniform_soup([ingredients[other] for other in (*kept, position)])
        reached = _finite_or_worst(score(tried))
        if reached >= best:
            soup, best = tried, reached
            kept.append(position)
    return soup, kept


def _finite_or_worst(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
