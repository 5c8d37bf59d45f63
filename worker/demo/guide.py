"""What the steps of the demo need of the command that leads through them."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef
    from shopvision.training.results import TrainingReport
    from shopvision.training.run import TrainingRun

Report = TypeVar("Report", bound="TrainingReport")

SHOWN = 6  # rows of a table in the terminal
NEIGHBOURS = 3  # in such a row


@dataclass(frozen=True)
class Guide:
    """The terminal, as the steps see it.

    Attributes:
        say: one line.
        show: a table: its columns and rows.
        training: a training run in a folder, shown while it goes on.
        run: submits a job of a kind, with parameters by name, and waits for its success.
    """

    say: Callable[[str], None]
    show: Callable[[Sequence[str], Sequence[Sequence[str]]], None]
    training: Callable[[Path], AbstractContextManager[TrainingRun]]
    run: Callable[..., uuid.UUID]

    def learn(self, recipe: Callable[[TrainingRun], Report | None]) -> tuple[ModelVersionRef, Report]:
        """Train by ``recipe``, and register what it gave; with what it reported.

        Raises:
            UserError: this is one of several processes.
        """
        from shopvision import models

        with tempfile.TemporaryDirectory() as scratch, self.training(Path(scratch, "run")) as run:
            report = recipe(run)
            if report is None:
                raise UserError("The demo trains in one process: start it without torchrun.")
            return models.import_model(f"local-dir:{report.folder}"), report
