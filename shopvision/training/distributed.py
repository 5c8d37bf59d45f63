"""One process, or one of several that ``torchrun`` started: its rank, its device, and what it exchanges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shopvision.encoders.devices import choose_device
from shopvision.errors import UserError

# The others wait while the main process looks at every picture; torchrun ends them where it dies.
LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Process:
    """This process among ``world`` equal ones; rank 0 writes files."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def require_shares(self, batch_size: int, count: int) -> None:
        """Refuse steps of which some process would have nothing.

        Args:
            batch_size: the configuration's, of all processes together.
            count: examples of training.

        Raises:
            UserError: it is not shared out evenly, or there are fewer examples than processes.
        """
        if batch_size % self.world:
            raise UserError(f"train.batch_size {batch_size} is not shared out evenly among {self.world}.")
        if count < self.world:
            raise UserError(
                f"{count} to learn from cannot be shared by {self.world} processes: lower --nproc-per-node or add some."
            )

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            dist.barrier()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes, which have gradients for the same parameters."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        handles = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
        for gradient, handle in zip(gradients, handles, strict=True):
            if handle is not None:
                handle.wait()
            gradient.div_(self.world)


def gather_with_local_gradients(vectors: Tensor) -> Tensor:
    """The vectors of all processes, in the order of their ranks; gradients flow into the own slice only.

    Args:
        vectors: (n, h), the same shape in every process.

    Returns:
        (W * n, h); outside of distributed training ``vectors`` themselves.
    """
    if not dist.is_initialized():
        return vectors
    parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, vectors.detach().contiguous())
    parts[dist.get_rank()] = vectors
    return torch.cat(parts)


@contextmanager
def joined(device: str | None = None) -> Iterator[Process]:
    """Join the other processes where ``torchrun`` started several, and leave them at the end.

    Args:
        device: ``cpu`` or ``cuda``; by default the GPU where there is one, each process its own.

    Raises:
        UserError: there is no such device, or there are more processes on this machine than GPUs.
    """
    place = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Process(device=place)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if place.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{local_rank + 1} or more processes for {torch.cuda.device_count()} GPUs: lower --nproc-per-node."
            )
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Process(rank, world, place)
    finally:
        dist.destroy_process_group()
