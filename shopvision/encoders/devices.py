"""Which device a model runs on, and what it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from shopvision.encoders.tuning import tuning_of
from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.models.kinds import Precision
    from shopvision.models.part import ModelPart


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without one the GPU where there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"Device '{name}' is unknown: use cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"Device '{name}' is not there: this process sees no GPU.")
    return device


def best_precision(device: torch.device) -> torch.dtype:
    """The fastest dtype that ``device`` computes in natively: bfloat16 before float16 before float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def choose_dtype(precision: Precision, device: torch.device, part: ModelPart | None = None) -> torch.dtype:
    """The dtype of that name; of ``auto`` what was measured to be best for ``part``, else ``best_precision``."""
    name: str | None = precision
    if precision == "auto":
        name = tuning_of(part, threads=torch.get_num_threads(), device=str(device)).precision
    if name is None:
        return best_precision(device)
    dtype: torch.dtype = getattr(torch, name)
    return dtype
