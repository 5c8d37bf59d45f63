"""A detector's core, compiled for the few shapes that most pictures have once they are prepared."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shopvision.encoders.compiled.module import CompiledModule, CompileMode

if TYPE_CHECKING:
    from shopvision.fashion.detection.network import DetectionNetwork

Shape = tuple[int, int]
# Compiling takes about a minute, beside the work: a shape that comes up so often will mostly come up again.
SEEN_BEFORE = 64
MOST_SHAPES = 6


class CompiledCores:
    """Called as the core is; gives what it gives. Not safe for threads."""

    def __init__(
        self, network: DetectionNetwork, *, device: torch.device, dtype: torch.dtype, mode: CompileMode
    ) -> None:
        """Take a network that will not change any more.

        Args:
            network: in evaluation mode, on ``device``.
            device: where it runs.
            dtype: what it computes in.
            mode: see ``CompiledModule``.
        """
        self._network, self._core = network, network.core()
        self._device, self._dtype = device, dtype
        self._mode: CompileMode = mode
        self._modules = {shape: self._module(shape) for shape in network.usual_shapes}
        self._seen: Counter[Shape] = Counter()

    @property
    def modules(self) -> tuple[CompiledModule, ...]:
        """Those of usual shapes, and of others that have come up often."""
        return tuple(module for module in self._modules.values() if module is not None)

    def __call__(self, *tensors: Tensor) -> Any:
        """What the core makes of pictures of one shape: (n, H, W, ...)."""
        shape = (tensors[0].shape[1], tensors[0].shape[2])
        if shape not in self._modules and len(self._modules) < MOST_SHAPES:
            self._seen[shape] += len(tensors[0])
            if self._seen[shape] >= SEEN_BEFORE:
                self._modules[shape] = self._module(shape)
        module = self._modules.get(shape)
        return self._core(*tensors) if module is None else module(*tensors)

    def _module(self, shape: Shape) -> CompiledModule | None:
        inputs = self._network.compiled_inputs(shape)
        if inputs is None:
            return None
        return CompiledModule(
            self._core, inputs, part="garment detector", device=self._device, dtype=self._dtype, mode=self._mode
        )
