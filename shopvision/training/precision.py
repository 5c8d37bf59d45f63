"""Mixed precision of a training run."""

from __future__ import annotations

import torch
from torch import Tensor

from shopvision.encoders.devices import best_precision


class MixedPrecision:
    """What networks compute in; weights, losses and gradients of weights stay float32."""

    def __init__(self, precision: str, device: torch.device) -> None:
        """``auto`` is the fastest dtype that a GPU computes in natively, and float32 on a CPU."""
        automatic = best_precision(device) if device.type == "cuda" else torch.float32
        self._device = device.type
        self._dtype: torch.dtype = automatic if precision == "auto" else getattr(torch, precision)
        self.scaler = torch.amp.GradScaler(self._device, enabled=self._dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        """Within it, matrix products run in the chosen dtype."""
        return torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def scale(self, loss: Tensor) -> Tensor:
        """Float16 gradients would underflow without it; the optimiser's step takes it back."""
        return self.scaler.scale(loss)
