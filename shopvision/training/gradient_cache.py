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

    embed: Callable[[], tuple[Tensor, Tensor | None]]
    cpu_state: Tensor
    cuda_state: Tensor | None
    vectors: Tensor
    start: int
    stop: int
    has_loss: bool


class GradientCache:
    """One step: ``embed`` every set of inputs, compute the loss from the vectors, ``backward`` once.

    A set that is a single micro-batch keeps its graph and is embedded once. Vectors must depend on their own input
    alone (no batch statistics), or the result would depend on the cut.
    """

    def __init__(self, autocast: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        """Encoders run within ``autocast()``; vectors and their gradients are float32 (float64 stays so)."""
        self._autocast = autocast
        self._embedded: list[_Embedded] = []
        self._losses: list[Tensor] = []

    def embed(self, encoder: Callable[[Part], Tensor], parts: Sequence[Part]) -> Tensor:
        """Vectors (n, d) of all ``parts``, one after the other; ``encoder`` maps a part to its vectors."""

        def without_loss(part: Part) -> tuple[Tensor, None]:
            return encoder(part), None

        return self.embed_with_loss(without_loss, parts)

    def embed_with_loss(self, encoder: Callable[[Part], tuple[Tensor, Tensor | None]], parts: Sequence[Part]) -> Tensor:
        """As ``embed``, of an encoder that also says a loss of the part alone, whose gradient ``backward`` adds."""
        if len(parts) == 1:
            vectors, loss = self._run(encoder, parts[0])
            self._losses += [] if loss is None else [loss]
            return vectors
        pieces, states, with_loss = [], [], []
        with torch.no_grad():
            for part in parts:
                states.append(_random_state())
                piece, loss = self._run(encoder, part)
                pieces.append(piece)
                with_loss.append(loss is not None)
        vectors = torch.cat(pieces).requires_grad_()
        start = 0
        for part, piece, (cpu_state, cuda_state), has_loss in zip(parts, pieces, states, with_loss, strict=True):
            stop = start + len(piece)

            def again(part: Part = part) -> tuple[Tensor, Tensor | None]:
                return self._run(encoder, part)

            self._embedded.append(_Embedded(again, cpu_state, cuda_state, vectors, start, stop, has_loss))
            start = stop
        return vectors

    def _run(self, encoder: Callable[[Part], tuple[Tensor, Tensor | None]], part: Part) -> tuple[Tensor, Tensor | None]:
        with self._autocast():
            vectors, loss = encoder(part)
        return vectors if vectors.dtype == torch.float64 else vectors.float(), loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to every parameter that took part; the cache is empty afterwards."""
        torch.autograd.backward([loss, *self._losses])
        after = _random_state()
        for embedded in self._embedded:
            gradient = embedded.vectors.grad
            if gradient is None and not embedded.has_loss:
                continue
            _set_random_state(embedded.cpu_state, embedded.cuda_state)
            again, own = embedded.embed()
            roots: list[tuple[Tensor, Tensor | None]] = []
            if gradient is not None:
                roots.append((again, gradient[embedded.start : embedded.stop]))
            if own is not None:
                roots.append((own, None))
            torch.autograd.backward([root for root, _ in roots], [weight for _, weight in roots])
        _set_random_state(*after)
        self._embedded.clear()
        self._losses.clear()


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
