"""Checkpoints of a run: complete or absent, readable without running code, removed when a newer one is safe.

``<output>/checkpoints/epoch-0003/`` holds ``model.safetensors`` (what training changes) and ``state.pt`` (optimiser
and bookkeeping, for ``torch.load(weights_only=True)``); ``<output>/checkpoints/best.safetensors`` the best epoch's.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shopvision.errors import UserError
from shopvision.models.weights import read_tensors, save_tensors

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.pt"


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, output: Path, *, keep_tensors: bool = False) -> None:
        """Checkpoints in ``output``; with ``keep_tensors`` every epoch's tensors stay, beside the newest's state."""
        self.folder = output / "checkpoints"
        self._keep_tensors = keep_tensors

    @property
    def best(self) -> Path:
        """The tensors of the best epoch so far."""
        return self.folder / "best.safetensors"

    def epochs(self) -> list[Path]:
        """The tensors of every epoch that is kept, in order."""
        return [folder / MODEL_FILE for folder in sorted(self.folder.glob("epoch-*"))]

    def latest(self) -> Path | None:
        """The newest complete checkpoint; None before the first epoch has ended."""
        return max(self.folder.glob("epoch-*"), default=None)

    def save(self, epoch: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of ``epoch`` and forget older ones. A run killed meanwhile keeps the former one."""
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_tensors(tensors, unfinished / MODEL_FILE)
        torch.save(dict(state), unfinished / STATE_FILE)
        for file in unfinished.iterdir():
            _sync(file)
        finished = self.folder / f"epoch-{epoch:04d}"
        unfinished.replace(finished)
        for older in self.folder.glob("epoch-*"):
            if older == finished:
                continue
            if self._keep_tensors:
                (older / STATE_FILE).unlink(missing_ok=True)
            else:
                shutil.rmtree(older)

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the best epoch's tensors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / "best.unfinished"
        save_tensors(tensors, new)
        _sync(new)
        new.replace(self.best)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint, on the CPU.

    Raises:
        UserError: the state is damaged.
        JobError: the tensors are.
    """
    try:
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
        raise UserError(f"{folder / STATE_FILE} is damaged: start again with another --output.") from None
    return read_tensors(folder / MODEL_FILE), state


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def require_fresh(output: Path, *, resume: bool) -> None:
    """Refuse to overwrite a run, and to begin one that cannot be written.

    Raises:
        UserError: ``output`` is a file or in a folder without rights, or holds a run and ``resume`` is not asked for.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: name a folder for the run with --output.")
    # Told now, and not after every picture was looked at.
    place = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        reason = os.strerror(errno.EACCES if place.is_dir() else errno.ENOTDIR)
        raise UserError(f"{output} cannot be made ({reason}): choose another --output.")
    if Checkpoints(output).latest() and not resume:
        raise UserError(f"{output} holds a run: continue it with --resume, or name another --output.")
