"""What the commands of ``shopvision train`` show while they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from worker.cli.output import error_console

if TYPE_CHECKING:
    from shopvision.training.distributed import Process
    from shopvision.training.run import TrainingProgress, TrainingRun


class Bars:
    """One bar for each stage of preparation, then one for each epoch, on stderr."""

    def __init__(self, *, shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=error_console, disable=not shown,
        )  # fmt: skip
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def run(self, output: Path, process: Process, *, resume: bool = False) -> TrainingRun:
        """A training run that these bars show."""
        from shopvision.training.run import TrainingRun

        return TrainingRun(output=output, process=process, resume=resume, on_progress=self.step, on_stage=self.stage)

    def stage(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` of one stage."""
        self._show(name, done, total, "")

    def step(self, progress: TrainingProgress) -> None:
        """One training step."""
        note = f"loss {progress.metrics['loss']:.3f}" if progress.metrics else ""
        self._show(f"epoch {progress.epoch}", progress.step, progress.steps_per_epoch, note)

    def _show(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, note="")
        self._progress.update(self._bars[name], completed=done, total=total)
        if note:
            self._progress.update(self._bars[name], note=note)
