"""The tunings of this machine: one JSON file each, below ``SHOPVISION_HOME``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from pydantic import ValidationError

from shopvision.encoders.tuning.machine import Machine
from shopvision.encoders.tuning.record import Tuning
from shopvision.errors import UserError
from shopvision.models.part import ModelPart

log = structlog.get_logger(__name__)

_LOCK = "measuring.lock"


class TuningStore:
    """Tunings below the folder ``home``. Safe for processes at once."""

    def __init__(self, home: Path) -> None:
        """Nothing is made yet."""
        self.folder = home / "tuning"

    def load(self, part: ModelPart, machine: Machine) -> Tuning | None:
        """What was measured of ``part`` on ``machine``; None where nothing was, or the file says something else."""
        found = self._read(self._path(part.digest, part.name, machine))
        if found is None or (found.digest, found.part, found.machine) != (part.digest, part.name, machine):
            return None
        return found

    def save(self, tuning: Tuning) -> None:
        """Keep ``tuning``, in place of the former one.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self._path(tuning.digest, tuning.part, tuning.machine)
        with self._writable(), tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".new", delete=False) as file:
            try:
                file.write(tuning.model_dump_json(indent=1))
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def all(self) -> list[Tuning]:
        """Every tuning, by model and age."""
        found = [tuning for path in self.folder.glob("*.json") if (tuning := self._read(path)) is not None]
        return sorted(found, key=lambda tuning: (tuning.spec, tuning.part, tuning.measured_at))

    @contextmanager
    def measuring(self) -> Iterator[bool]:
        """Be the one process that measures; gives False where another one does. Does not wait.

        Raises:
            UserError: the folder cannot be written.
        """
        with self._writable():
            handle = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}): measured settings are kept there; "
                "name a folder of your own in SHOPVISION_HOME."
            ) from None

    def _path(self, digest: str, part: str, machine: Machine) -> Path:
        key = "\n".join((digest, part, machine.model_dump_json()))
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _read(self, path: Path) -> Tuning | None:
        try:
            return Tuning.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("tuning not read: it will be measured anew", file=str(path), reason=str(error).splitlines()[0])
            return None
