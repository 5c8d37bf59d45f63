"""What a run measures: one JSON object a line in ``metrics.jsonl``, and the same curves for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Writes ``<output>/metrics.jsonl`` and ``<output>/tensorboard``."""

    def __init__(self, output: Path, *, epochs_done: int, steps_done: int) -> None:
        """Open the log of a run that continues after ``epochs_done`` epochs; what was written later is removed."""
        self._path = output / METRICS_FILE
        kept = [line for line in self._lines() if json.loads(line)["epoch"] <= epochs_done] if epochs_done else []
        self._path.write_text("".join(kept), encoding="utf-8")
        # TensorBoard hides the steps that the interrupted run wrote beyond its last checkpoint.
        self._board: Any = SummaryWriter(output / TENSORBOARD_FOLDER, purge_step=steps_done + 1 if steps_done else None)

    def _lines(self) -> list[str]:
        """Whole lines of the file; a run that was killed may have left half a line."""
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def write(self, split: str, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Note ``metrics`` of ``split`` (``train``, ``valid``) after ``step`` steps in all, within ``epoch``."""
        values = {name: float(value) for name, value in metrics.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"split": split, "epoch": epoch, "step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._board.close()
