"""What a click ranker learns from. Every function gives a loss for each pair or item, not yet averaged."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 0.5  # published, though unused there


def difference_loss(first: Tensor, second: Tensor, first_wins: Tensor) -> Tensor:
    """``BCE(sigmoid(s_a - s_b), label)``, as published.

    Args:
        first: (n,) scores.
        second: (n,) scores of the other picture.
        first_wins: (n,) bool.

    Returns:
        (n,).
    """
    differences = first - second
    return functional.binary_cross_entropy_with_logits(differences, first_wins.to(differences.dtype), reduction="none")


def margin_loss(first: Tensor, second: Tensor, first_wins: Tensor, margin: float = MARGIN) -> Tensor:
    """``max(0, margin - (better - worse))``; arguments as of ``difference_loss``."""
    differences = torch.where(first_wins, first - second, second - first)
    return functional.relu(margin - differences)


def list_loss(scores: Tensor, rates: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy of the shares of an item's clicks (ListNet, Cao et al. 2007): of equally often shown pictures.

    Args:
        scores: (n, k), a row of an item's pictures each.
        rates: (n, k) click rates, not negative.
        there: (n, k) bool; elsewhere is padding.

    Returns:
        (n,), 0 where no picture was clicked.
    """
    shares = torch.where(there, rates, 0.0)
    total = shares.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, shares / total.clamp_min(torch.finfo(shares.dtype).tiny), 0.0)
    logarithms = scores.masked_fill(~there, torch.finfo(scores.dtype).min).log_softmax(dim=1)
    return -(shares * logarithms.masked_fill(~there, 0.0)).sum(dim=1)
