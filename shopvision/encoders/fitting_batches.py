"""Batches as large as memory allows: one that does not fit is halved, and so are all later ones."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import torch

from shopvision.errors import JobError

log = structlog.get_logger(__name__)


class FittingBatches:
    """How many inputs of one network fit into the memory of its device at once.

    Attributes:
        largest: what is known to be too much is above it; None while everything was small enough.
    """

    def __init__(self, device: torch.device, most: int | None = None) -> None:
        """Begin with at most so many at once; None is no limit."""
        self.largest = most
        self._device = device

    def run(self, count: int, compute: Callable[[int, int], None]) -> None:
        """Compute ``count`` inputs, in as few batches as fit.

        Args:
            count: how many there are.
            compute: called with the first and the one behind the last of a batch, in order; called again with fewer
                where memory was short.

        Raises:
            JobError: not even one fits.
        """
        start = 0
        while start < count:
            size = min(count - start, self.largest or count)
            try:
                compute(start, start + size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise JobError(
                        f"Not enough memory on {self._device} for one picture: use a smaller model or device."
                    ) from error
                self.largest = size // 2
            else:
                start += size
                continue
            # Outside the handler, because the caught error keeps the tensors of the failed attempt alive.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory: smaller batches from now on", batch_size=self.largest, device=str(self._device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory was short."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in ("not enough memory", "can't allocate memory", "out of memory"))
