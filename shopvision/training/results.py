"""What a training leaves behind: a model version folder, and a list of the pictures that it did without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.evaluation.report import EvaluationReport, without_interval

if TYPE_CHECKING:
    from shopvision.models.card import ModelCard

MODEL_FOLDER = "model"
UNREADABLE_FILE = "unreadable.jsonl"


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a training gave.

    Attributes:
        folder: the model version, for ``shopvision models import local-dir:FOLDER``.
        card: its card.
        best_epoch: the epoch that was kept.
        metrics: its validation metrics.
        unreadable: pictures that were done without; ``unreadable.jsonl`` names them.
        seconds_per_epoch: mean wall time.
        notes: sentences that whoever reads the numbers should know.
    """

    folder: Path
    card: ModelCard
    best_epoch: int
    metrics: dict[str, float]
    unreadable: int
    seconds_per_epoch: float
    notes: tuple[str, ...] = ()

    def summary(self, what: str, sizes: Mapping[str, int], **facts: Any) -> EvaluationReport:
        """In the shape of every evaluation: the validation metrics, over which the epoch was chosen.

        Args:
            what: was trained and validated on, in the plural.
            sizes: of ``valid``, and of the other splits.
            facts: further ones.
        """
        promises = self.card.promises
        others = {f"{what} for {name}": size for name, size in sizes.items() if name != "valid"}
        return EvaluationReport(
            name=self.card.spec,
            data=f"validation split; trained on {self.card.training_data}",
            counts={f"validation {what}": sizes["valid"], **others, "unreadable pictures": self.unreadable},
            metrics=without_interval(self.metrics, sizes["valid"]),
            facts={
                "epoch": self.best_epoch,
                "seconds_per_epoch": round(self.seconds_per_epoch, 2),
                "thresholds": self.card.thresholds,
                **({} if promises is None else {"promises": dict(promises.rows())}),
                **facts,
            },
            notes=self.notes,
        )


def write_unreadable(output: Path, reasons: Mapping[str, str]) -> None:
    """Name the pictures that could not be read (address -> why) in the folder of a run, if there are any."""
    if reasons:
        lines = [json.dumps({"picture": uri, "reason": reason}) for uri, reason in reasons.items()]
        (output / UNREADABLE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
