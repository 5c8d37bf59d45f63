"""What a click ranker learns from. Every function gives a loss for each pair or item, not yet averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.selection.click.data import Comparisons

LossName = Literal["counts", "difference", "margin", "list"]

MARGIN = 0.5  # published, though unused there


def choose_loss(wanted: LossName | None, pairs: Comparisons) -> LossName:
    """The loss that was asked for, or else the one that uses all that is known of the training pairs.

    Raises:
        UserError: clicks are to be learnt from that nobody counted.
    """
    counted = not np.isnan(pairs.clicks).any()
    if wanted == "counts" and not counted:
        raise UserError(
            'The file says which picture was clicked more, but not how often: take train.loss = "difference", or count.'
        )
    return wanted or ("counts" if counted else "difference")


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


def counts_loss(first: Tensor, second: Tensor, clicks: Tensor, views: Tensor) -> Tensor:
    """How unlikely the clicks of a test fell as they did, where click rates are proportional to ``exp(score)``.

    Of two Poisson counts, given their sum, the first is binomial with the share ``r_a n_a / (r_a n_a + r_b n_b)`` of n
    views at the rates r (Przyborowski and Wilenski 1940), whose logit is ``s_a - s_b + log(n_a / n_b)``. So a pair
    counts by its clicks: luck decides few of many, and most of a few.

    Args:
        first: (n,) scores.
        second: (n,) scores of the other picture.
        clicks: (n, 2) of both.
        views: (n, 2) how often each was shown.

    Returns:
        (n,), a sum over the clicks of each pair.
    """
    logits = first - second + (views[:, 0] / views[:, 1]).log()
    return -(clicks[:, 0] * functional.logsigmoid(logits) + clicks[:, 1] * functional.logsigmoid(-logits))


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
