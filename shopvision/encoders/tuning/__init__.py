"""How each network is run on each machine, chosen by measuring. Loads no torch."""

from __future__ import annotations

from shopvision.encoders.tuning.chosen import tuning_of
from shopvision.encoders.tuning.machine import Machine, this_machine
from shopvision.encoders.tuning.record import Rate, Setting, Tuning, TuningChoice
from shopvision.encoders.tuning.store import TuningStore

__all__ = ["Machine", "Rate", "Setting", "Tuning", "TuningChoice", "TuningStore", "this_machine", "tuning_of"]
