"""The exact gradient of a loss over many vectors, with memory for one micro-batch of the encoders.

A contrastive loss looks at all vectors of the batch at once, so adding up the gradients of separate micro-batches
would be the gradient of another loss. Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup": embed every micro-batch without a graph, take the loss's gradient with respect to the vectors, then
embed each micro-batch again, with the same random numbers, and send its vectors' gradients back through the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A micro-batch that must be embedded again: how, from which random state, and where its vectors lie."""

    embed: Callable[[], Tensor]
    cpu_state: Tensor
    cuda_state: Tensor | None
    vectors: Tensor
    start: int
    stop: int


class GradientCache:
    """One step: ``embed`` every set of inputs, compute the loss from the vectors, ``backward`` once.

    A set that is a single micro-batch keeps its graph and is embedded once. Vectors must depend on their own input
    alone (no batch statistics), or the result would depend on the cut.
    """

    def __init__(self, autocast: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        """Encoders run within ``autocast()``; vectors and their gradients are float32 (float64 stays so)."""
        self._autocast = autocast
        self._embedded: list[_Embedded] = []

    def embed(self, encoder: Callable[[Part], Tensor], parts: Sequence[Part]) -> Tensor:
        """Vectors (n, d) of all ``parts``, one after the other; ``encoder`` maps a part to its vectors."""
        if len(parts) == 1:
            return self._run(encoder, parts[0])
        pieces, states = [], []
        with torch.no_grad():
            for part in parts:
                states.append(_random_state())
                pieces.append(self._run(encoder, part))
        vectors = torch.cat(pieces).requires_grad_()
        start = 0
        for part, piece, (cpu_state, cuda_state) in zip(parts, pieces, states, strict=True):
            stop = start + len(piece)
            self._embedded.append(
                _Embedded(lambda part=part: self._run(encoder, part), cpu_state, cuda_state, vectors, start, stop)  # type: ignore[misc] # mypy cannot type a lambda's default
            )
            start = stop
        return vectors

    def _run(self, encoder: Callable[[Part], Tensor], part: Part) -> Tensor:
        with self._autocast():
            vectors = encoder(part)
        return vectors if vectors.dtype == torch.float64 else vectors.float()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to every parameter that took part; the cache is empty afterwards."""
        torch.autograd.backward([loss])
        after = _random_state()
        for embedded in self._embedded:
            if embedded.vectors.grad is None:
                continue
            _set_random_state(embedded.cpu_state, embedded.cuda_state)
            again = embedded.embed()
            torch.autograd.backward([again], [embedded.vectors.grad[embedded.start : embedded.stop]])
        _set_random_state(*after)
        self._embedded.clear()


def micro_batches(count: int, size: int | None) -> list[slice]:
    """Slices that cover ``count`` rows, each of ``size`` rows at most (None: all at once)."""
    size = size or max(count, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _random_state() -> tuple[Tensor, Tensor | None]:
    cuda: Any = torch.cuda
    return torch.get_rng_state(), cuda.get_rng_state() if cuda.is_initialized() else None


def _set_random_state(cpu_state: Tensor, cuda_state: Tensor | None) -> None:
    torch.set_rng_state(cpu_state)
    if cuda_state is not None:
        torch.cuda.set_rng_state(cuda_state)
