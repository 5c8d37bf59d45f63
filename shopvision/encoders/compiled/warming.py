"""Making a model's packages before they are needed, and telling what they bring."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shopvision.encoders.compiled.module import CompiledModule
from shopvision.errors import JobError

RUNS = 3


@dataclass(frozen=True)
class Warmed:
    """One network that may run compiled.

    Attributes:
        part: of the model.
        compiled: whether it will run compiled.
        reason: why not.
        made: whether the package was made now; False where it was there.
        eager_per_second: rows of its first input.
        compiled_per_second: the same; None where it is not compiled.
        path: of the package.
        megabytes: of the package.
    """

    part: str
    compiled: bool
    reason: str | None
    made: bool
    eager_per_second: float
    compiled_per_second: float | None
    path: Path | None
    megabytes: float | None


def warm(network: CompiledModule) -> Warmed:
    """Make the package of a network where it is not there; measured in this process, with its number of threads.

    Raises:
        JobError: packages cannot be kept in this ``SHOPVISION_HOME``.
    """
    there = network.place.exists()
    try:
        reason = network.make()
    except OSError as error:
        raise JobError(
            f"{network.place.parent} cannot be written to ({error.strerror}): free space, mend its rights, or set "
            "SHOPVISION_HOME to another folder."
        ) from None
    package = network.package() if reason is None else None
    tensors = network.examples()
    with torch.inference_mode():
        eager = _per_second(network.module, tensors)
        compiled = None if package is None else _per_second(package, tensors)
    path = None if package is None else network.place
    megabytes = None if path is None else round(path.stat().st_size / 1e6, 1)
    return Warmed(network.key.part, package is not None, reason, not there, eager, compiled, path, megabytes)


def _per_second(run: Callable[..., Any], tensors: list[Tensor]) -> float:
    """By the best run after one that warms up."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        run(*tensors)
        if tensors[0].device.type == "cuda":
            torch.cuda.synchronize(tensors[0].device)
        times.append(time.perf_counter() - started)
    return round(len(tensors[0]) / min(times[1:]), 1)
