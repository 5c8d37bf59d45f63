"""What the steps of the demo need of the command that leads through them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shopvision.training.run import TrainingRun

SHOWN = 6  # rows of a table in the terminal
NEIGHBOURS = 3  # in such a row


@dataclass(frozen=True)
class Guide:
    """The terminal, as the steps see it.

    Attributes:
        say: one line.
        show: a table: its columns and rows.
        training: a training run in a folder, shown while it goes on.
        run: submits a job of a kind and waits for its success.
    """

    say: Callable[[str], None]
    show: Callable[[Sequence[str], Sequence[Sequence[str]]], None]
    training: Callable[[Path], AbstractContextManager[TrainingRun]]
    run: Callable[[str], uuid.UUID]
