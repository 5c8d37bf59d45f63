"""Whether a compiled network gives what the eager one gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Largest length of the difference of two rows, by the length of the eager one. The cosine between them is then at least
# 1 - tolerance^2 / 2: 0.9999995 in float32, and 0.9995 in 16 bits, whose own rounding is as much.
TOLERANCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.03}


def disagreement(eager: Any, compiled: Any, dtype: str) -> str | None:
    """How two results differ by more than ``TOLERANCE``; None where they agree.

    Args:
        eager: a tensor, or tuples, lists and dicts of tensors, with rows along their first axis.
        compiled: the same of the compiled network.
        dtype: that the network computes in, such as ``float32``.
    """
    (ours, spec), (theirs, other) = pytree.tree_flatten(eager), pytree.tree_flatten(compiled)
    if spec != other:
        return "they are built differently"
    for number, (expected, found) in enumerate(zip(ours, theirs, strict=True)):
        where = f"tensor {number}: " if len(ours) > 1 else ""
        if expected.shape != found.shape or expected.dtype != found.dtype:
            return f"{where}{tuple(found.shape)} {found.dtype}, not {tuple(expected.shape)} {expected.dtype}"
        if (difference := _largest_difference(expected, found)) > TOLERANCE[dtype]:
            return f"{where}a row by {difference:.2g} of its length"
    return None


def _largest_difference(expected: Tensor, found: Tensor) -> float:
    """Relative to the row's length; rows without a finite value on one side only are infinitely different."""
    if expected.numel() == 0:
        return 0.0
    rows, others = (tensor.detach().double().reshape(max(1, len(expected)) if expected.ndim else 1, -1)
                    for tensor in (expected, found))  # fmt: skip
    finite, other_finite = (tensor.isfinite().all(dim=1) for tensor in (rows, others))
    if not torch.equal(finite, other_finite):
        return float("inf")
    rows, others = rows[finite], others[finite]
    if len(rows) == 0:
        return 0.0
    lengths = rows.norm(dim=1)
    lengths = lengths.clamp(min=max(1e-6 * float(lengths.max()), 1e-12))
    return float(((rows - others).norm(dim=1) / lengths).max())
