"""Which tensors a compiled network takes. It checks nothing itself, so whoever calls it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Free:
    """A dimension that is only known when the network runs; those of one name are equal.

    Attributes:
        name: of this dimension, an identifier.
        least: its smallest length, at least 2: the compiler takes 0 and 1 for special.
        most: its greatest length.
        step: all lengths, also ``least`` and ``most``, are multiples of it.
    """

    name: str
    least: int
    most: int
    step: int = 1

    def __post_init__(self) -> None:
        if not (2 <= self.least < self.most and self.step >= 1 and self.least // self.step >= 1):
            raise ValueError(f"dimension {self.name}: {self.least} to {self.most} in steps of {self.step}")
        if self.least % self.step or self.most % self.step:
            raise ValueError(f"dimension {self.name}: {self.least} and {self.most} are no multiples of {self.step}")

    def takes(self, length: int) -> bool:
        """Whether a dimension may be so long."""
        return self.least <= length <= self.most and length % self.step == 0


@dataclass(frozen=True)
class InputSpec:
    """One tensor, contiguous.

    Attributes:
        dtype: its name in torch, such as ``uint8``.
        shape: a number, or ``Free``, for each dimension.
    """

    dtype: str
    shape: tuple[int | Free, ...]


def fit(specs: Sequence[InputSpec], tensors: Sequence[Tensor], device: str) -> bool:
    """Whether a network that was compiled for ``specs`` on a device of this type may be given ``tensors``."""
    if len(specs) != len(tensors):
        return False
    lengths: dict[str, int] = {}
    for spec, tensor in zip(specs, tensors, strict=True):
        if str(tensor.dtype) != f"torch.{spec.dtype}" or tensor.device.type != device:
            return False
        if tensor.ndim != len(spec.shape) or not tensor.is_contiguous():
            return False
        for wanted, length in zip(spec.shape, tensor.shape, strict=True):
            if isinstance(wanted, Free):
                if not wanted.takes(length) or lengths.setdefault(wanted.name, length) != length:
                    return False
            elif wanted != length:
                return False
    return True


def export_shapes(specs: Sequence[InputSpec]) -> tuple[dict[int, Any], ...]:
    """``dynamic_shapes`` of ``torch.export.export``, for positional tensors."""
    from torch.export import Dim

    dimensions: dict[Free, Any] = {}

    def dimension(free: Free) -> Any:
        if free not in dimensions:
            base = Dim(free.name, min=free.least // free.step, max=free.most // free.step)
            dimensions[free] = base if free.step == 1 else free.step * base
        return dimensions[free]

    return tuple(
        {axis: dimension(length) for axis, length in enumerate(spec.shape) if isinstance(length, Free)}
        for spec in specs
    )


def example(specs: Sequence[InputSpec]) -> list[Tensor]:
    """Tensors on the CPU that fit, always the same: random pixels, numbers about zero, or zeros and ones.

    Free dimensions are about 32 long.
    """
    return _random(specs, lambda free: min(free.most, max(free.least, 32 - 32 % free.step, 2 * free.step)))


def smallest(specs: Sequence[InputSpec]) -> list[Tensor]:
    """As ``example``, with every free dimension as short as it may be."""
    return _random(specs, lambda free: free.least)


def _random(specs: Sequence[InputSpec], length: Callable[[Free], int]) -> list[Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = []
    for spec in specs:
        shape = [length(wanted) if isinstance(wanted, Free) else wanted for wanted in spec.shape]
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            tensors.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            tensors.append(torch.randint(256 if dtype == torch.uint8 else 2, shape, generator=generator).to(dtype))
    return tensors
