"""What a model must offer to be measured, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from shopvision.encoders.tuning.record import Setting
from shopvision.settings import TuningChoice, Way

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from shopvision.models.part import ModelPart


class TunablePart(Protocol):
    """A network that takes more or fewer inputs at once, on one device.

    Attributes:
        part: which network of which model version it is; what is of none is not measured.
        unit: what ``batch_size`` counts: ``pictures``, ``tokens``.
        device: where it runs.
        batches_at_once: that it computes side by side in threads of its own.
    """

    part: ModelPart | None
    unit: str
    device: torch.device
    batches_at_once: int

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Candidates, the one that is usual on this device first."""

    @property
    def ways(self) -> Sequence[Way]:
        """How it can run now; ``eager`` always."""

    def trial(self, setting: Setting, work: int) -> Callable[[], None]:
        """Something that computes ``work`` made-up inputs with ``setting``.

        Whatever it makes up is made before it is called: it will be timed, again and again.

        Args:
            setting: one of ``batch_sizes`` and of ``ways``; how many pictures are decoded beside it, if that is asked.
            work: in units; at least one batch.
        """

    def vectors(self, count: int) -> NDArray[np.float32] | None:
        """What it makes of so many made-up inputs, (count, d), the same each time; None where it makes no vectors."""

    def use(self, chosen: TuningChoice) -> None:
        """Run with ``chosen`` from now on, as far as that can be changed; called between two pieces of work."""


@runtime_checkable
class Tunable(Protocol):
    """A loaded model that can be measured."""

    @property
    def tunable_parts(self) -> Sequence[TunablePart]:
        """Its networks."""
