"""How far apart two ways to compute the same thing may come out."""

from __future__ import annotations

import torch


def rounding(dtype: torch.dtype, *, terms: int, amplified: float = 1.0) -> float:
    """The largest difference that rounding explains, relative to the largest number involved.

    A sum of n terms is off by at most n units of rounding, whatever the order in which a processor adds (with other
    instructions or threads it is another); two such sums differ by at most twice that.

    Args:
        dtype: that is computed in.
        terms: how many are summed on the longest way from input to output, all layers together.
        amplified: by how much what follows enlarges an error, as a division by a small number does.
    """
    return 2 * terms * amplified * torch.finfo(dtype).eps
