"""``<home>/run/<worker>/``: what a running worker leaves for those who look after it. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from shopvision.errors import UserError

RUN_DIRECTORY_VARIABLE = "SHOPVISION_RUN_DIR"
ALIVE_SECONDS = 60.0  # a heartbeat older than this means dead


@dataclass(frozen=True)
class RunDirectory:
    """``<home>/run/<name>``: a worker's heartbeat, stop file, health address and metrics, for as long as it runs."""

    path: Path
    lock: int | None = None  # descriptor, in the process that claimed it

    @property
    def name(self) -> str:
        """The worker's short name: ``gpu0``, ``cpu``, ..."""
        return self.path.name

    @property
    def heartbeat(self) -> Path:
        """Touched every few seconds while the worker is alive."""
        return self.path / "heartbeat"

    @property
    def stop_file(self) -> Path:
        """Exists from the moment the worker was asked to stop."""
        return self.path / "stop"

    @property
    def address_file(self) -> Path:
        """Where /livez, /readyz and /metrics are served."""
        return self.path / "health.json"

    @property
    def metrics(self) -> Path:
        """Where the worker's processes keep their counters."""
        return self.path / "prometheus"

    def heartbeat_age(self) -> float:
        """Seconds since the last heartbeat; infinite before the first."""
        try:
            return max(0.0, time.time() - self.heartbeat.stat().st_mtime)
        except FileNotFoundError:
            return float("inf")

    def in_use(self) -> bool:
        """True while the process that claimed the directory lives, however it would end."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def run_directories(home: Path) -> list[RunDirectory]:
    """Run directories of every worker that lives on this home."""
    folders = sorted(path for path in (home / "run").glob("*") if path.is_dir())
    return [directory for directory in map(RunDirectory, folders) if directory.in_use()]


def claim_run_directory(home: Path, name: str) -> RunDirectory:
    """Take ``run/<name>``, or ``run/<name>-2`` and so on where it is taken, and empty it of what a dead worker left.

    The lock is an inherited file descriptor: it survives ``exec`` and ends with the process, also after kill -9.
    """
    number = 1
    while True:
        path = home / "run" / (name if number == 1 else f"{name}-{number}")
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            number += 1
            continue
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
        directory = RunDirectory(path, descriptor)
        for leftover in (directory.heartbeat, directory.stop_file, directory.address_file):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(directory.metrics, ignore_errors=True)
        directory.metrics.mkdir()
        return directory


def check_heartbeats(home: Path, worker: str | None = None) -> dict[str, float]:
    """Age in seconds of the heartbeat of ``worker``, or of every worker that runs on this home.

    Raises:
        UserError: no such worker runs, or one has not been heard of for ``ALIVE_SECONDS``.
    """
    directories = [found for found in run_directories(home) if worker in {None, found.name}]
    if not directories:
        raise UserError(f"No worker{f' {worker}' if worker else ''} runs on {home}.")
    ages = {directory.name: directory.heartbeat_age() for directory in directories}
    for name, age in ages.items():
        if age > ALIVE_SECONDS:
            raise UserError(f"Worker {name} is not alive: its last heartbeat is {age:.0f} s old.")
    return ages
