"""What was measured of a network on a machine, and what was chosen by it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shopvision.encoders.tuning.machine import Machine
from shopvision.settings import TuningChoice, Way

__all__ = ["EXACT", "LEAST_AGREEMENT", "Rate", "Setting", "Tuning", "TuningChoice", "Way"]

EXACT: Literal["float32"] = "float32"
# Smallest cosine, over a sample, between vectors of one picture in float32 and in something shorter. Those of bfloat16
# are at 0.9997 on average; float16, as vectors are stored, costs less than a thousandth of that.
LEAST_AGREEMENT = 0.998


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Setting(_Record):
    """A way to run a network.

    Attributes:
        batch_size: inputs at once, in the unit of the part: pictures, tokens.
        way: as its library made it, or through a compiled package.
        threads: that each replica computes with.
        replicas: that run at the same time.
        decoding_threads: that decode pictures beside it; None where none were decoded.
        precision: that it computes in.
    """

    batch_size: int
    way: Way = "eager"
    threads: int
    replicas: int = 1
    decoding_threads: int | None = None
    precision: str = "float32"


class Rate(_Record):
    """How fast a setting was.

    Attributes:
        setting: see there.
        per_second: inputs of all replicas together, the median of the repetitions.
        scatter: how far the repetitions lie apart: the middle half of them, as a share of the median.
    """

    setting: Setting
    per_second: float
    scatter: float


class Tuning(_Record):
    """How one network is run best on one machine.

    Attributes:
        spec: ``name:tag`` of the model version.
        digest: of its card; see ``ModelPart``.
        part: which of its networks.
        machine: where it was measured.
        unit: what batches are counted in.
        ways: in which it could run when it was measured.
        chosen: what to use; None stands for what is not known to matter.
        layout: (threads, replicas) that a machine's processes should have for this network; None where the machine was
            not this process's own while it measured.
        steady: whether repetitions agreed; where they did not, ``chosen`` are the defaults.
        agreement: smallest cosine between vectors in ``chosen.precision`` and in float32; None where it was not asked.
        rates: everything that was measured, in the order of measuring.
        seconds: that measuring took.
        measured_at: when.
    """

    format_version: Literal[1] = 1
    spec: str
    digest: str
    part: str
    machine: Machine
    unit: str
    ways: tuple[Way, ...] = ("eager",)
    chosen: TuningChoice
    layout: tuple[int, int] | None = None
    steady: bool = True
    agreement: float | None = None
    rates: tuple[Rate, ...] = ()
    seconds: float
    measured_at: datetime
