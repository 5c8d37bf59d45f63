"""Adagrad with one number for each row of a table: a step touches the rows that it saw, and no others.

An Adam would keep two more tables, and run over all three in every step, though a step sees a few thousand rows of
hundreds of thousands. As PyTorch-BigGraph has it (Lerer et al. 2019), but with the row's length in place of its mean
square, so that the first step of a row is ``lr`` long whatever the number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-12


class RowAdagrad(torch.optim.Optimizer):
    """``G += |g|^2; row -= lr * g / sqrt(G)``, then to unit length in groups with ``unit``.

    Gradients are dense, or sparse with coalesced rows; of a dense one every row counts as seen.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Of groups with ``params``, two-dimensional tables, ``lr``, and ``unit`` where rows keep unit length."""
        super().__init__(groups, {"lr": 0.3, "unit": False})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["squares"] = torch.zeros(len(table), device=table.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override] # noqa: ARG002
        """Take one step."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    _update(table, table.grad, self.state[table]["squares"], group["lr"], unit=group["unit"])


def _update(table: Tensor, gradient: Tensor, squares: Tensor, rate: float, *, unit: bool) -> None:
    if gradient.is_sparse:
        rows, values = gradient.indices()[0], gradient.values()
    else:
        rows, values = torch.arange(len(table), device=table.device), gradient
    kept = squares[rows] + values.square().sum(1)
    squares[rows] = kept
    new = table[rows].addcmul_(values, kept.clamp(min=_TINY).rsqrt_().unsqueeze(1), value=-rate)
    table[rows] = functional.normalize(new, dim=1) if unit else new
