"""One call of a training recipe: where it writes, which process this is, whether it continues, who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.settings import get_settings
from shopvision.training.distributed import Process
from shopvision.training.results import MODEL_FOLDER, write_unreadable

if TYPE_CHECKING:
    from shopvision.models.card import ModelCard
    from shopvision.training.loop import FitResult

OnProgress = Callable[[int, int], None]
"""Called with (done, all)."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a run is: steps are counted within the epoch; ``metrics`` are the latest of the training split."""

    epoch: int
    step: int
    steps_per_epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What every recipe is given beside its configuration.

    Attributes:
        output: folder of the run: checkpoints, metrics, curves, and at the end the model version.
        process: this process; networks lie on its device.
        resume: continue an interrupted run in ``output``.
        on_progress: called after every step.
        on_stage: called with (what it is, done, all) while something is prepared, or models are taught beside.
    """

    output: Path
    process: Process = field(default_factory=Process)
    resume: bool = False
    on_progress: Callable[[TrainingProgress], None] = lambda _: None
    on_stage: Callable[[str, int, int], None] = lambda *_: None

    @property
    def feature_cache(self) -> Path:
        """Where features of frozen encoders are kept, for all runs of this machine."""
        return get_settings().cache_dir / "features"

    @property
    def model_folder(self) -> Path:
        """Where the model version lies at the end."""
        return self.output / MODEL_FOLDER

    def stage(self, name: str) -> OnProgress:
        """A listener for one stage of preparation."""
        return lambda done, total: self.on_stage(name, done, total)

    def save(self, write: Callable[[Path], ModelCard], unreadable: Mapping[str, str]) -> ModelCard:
        """Let ``write`` make the model version's folder, and name the pictures done without."""
        write_unreadable(self.output, unreadable)
        return write(self.model_folder)

    def finish(
        self, result: FitResult, write: Callable[[Path], ModelCard], unreadable: Mapping[str, str]
    ) -> dict[str, Any]:
        """``save`` after ``fit``; gives the fields of ``TrainingReport`` that are told alike of every recipe."""
        return {
            "folder": self.model_folder,
            "card": self.save(write, unreadable),
            "best_epoch": result.best_epoch,
            "metrics": result.metrics,
            "unreadable": len(unreadable),
            "seconds_per_epoch": result.seconds_per_epoch,
        }
