"""The gradients of a training's first step, to compare one process with several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from shopvision.training.distributed import Process


class FirstStepDone(Exception):  # noqa: N818 - not an error
    """Ends a training after the gradients of its first step."""


def save_first_gradients(path: Path, train: Callable[[], object]) -> None:
    """Write the gradients, averaged over all processes, of the first step that ``train`` makes; one process writes."""
    average = Process.average_gradients

    def spy(own: Process, parameters: Iterable[nn.Parameter]) -> None:
        weights = list(parameters)
        average(own, weights)
        if own.is_main:
            torch.save([weight.grad for weight in weights], path)
        raise FirstStepDone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "average_gradients", spy)
        with pytest.raises(FirstStepDone):
            train()
