"""Packages: taken where they are there, asked for where they are not. Making one is the work of another process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from pickle import PicklingError
from typing import IO, TYPE_CHECKING

import structlog
import torch
from torch import nn

from shopvision.encoders.compiled.library import BrokenLibraryError, CompiledLibrary
from shopvision.encoders.compiled.packages import Note, PackageFolder
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from shopvision.encoders.compiled.key import PackageKey

log = structlog.get_logger(__name__)

FOLDER = "compiled"


class CompiledPackages:
    """The packages below one ``SHOPVISION_HOME``."""

    def __init__(self, home: Path) -> None:
        """Nothing is made or read yet."""
        self._folder = PackageFolder(home / FOLDER)

    def is_empty(self) -> bool:
        """Whether there is nothing to load, so that no key needs to be worked out."""
        return self._folder.is_empty()

    def load(self, key: PackageKey, device: torch.device) -> CompiledLibrary | None:
        """The package of ``key``, ready to run on ``device``; None where there is none, or none that can be trusted."""
        path = self._folder.find(key.name, key.as_dict())
        if path is None:
            return None
        try:
            return CompiledLibrary(path, device)
        except BrokenLibraryError as error:
            self.refuse(key, f"it cannot be loaded: {error}")
            return None

    def refusal(self, key: PackageKey) -> str | None:
        """Why there will be no package of ``key`` for now, if that is known."""
        return self._folder.refusal(key.name, key.as_dict())

    def refuse(self, key: PackageKey, reason: str) -> None:
        """Throw the package away; for a day nobody makes it anew."""
        log.warning("model not compiled", part=key.part, reason=reason)
        try:
            with self._folder.lock(key.name, wait=True):
                self._folder.remove(key.name)
                self._folder.keep(key.name, Note(key.as_dict(), None, reason, 0.0, time.time()))
        except OSError as error:
            log.warning("compiled models cannot be kept", folder=str(self._folder.folder), reason=error.strerror)

    def place(self, key: PackageKey) -> Path:
        """Where the package of ``key`` lies, if it does."""
        return self._folder.library(key.name)

    def make(self, key: PackageKey, module: nn.Module, device: torch.device) -> str | None:
        """Make the package where it is not there, and wait for that; an earlier refusal does not count.

        Args:
            key: of the package.
            module: what ``key`` is of: in evaluation mode, on ``device``.
            device: where it runs.

        Returns:
            Why there is none; None where there is.

        Raises:
            OSError: the folder cannot be written to.
        """
        if self._folder.find(key.name, key.as_dict()) is not None:
            return None
        self._folder.prepare()
        self._folder.remove(key.name)
        process = self._start(key, module, device)
        return self.refusal(key) if process is None else self._wait(process, key)

    def request(self, key: PackageKey, module: nn.Module, device: torch.device) -> None:
        """Let it be made while this process goes on; nothing happens where that is under way, or cannot be."""
        try:
            with self._folder.lock(key.name, wait=False) as free:
                if not free:
                    return
            process = self._start(key, module, device)
        except OSError as error:
            log.warning("compiled models cannot be kept", folder=str(self._folder.folder), reason=error.strerror)
            return
        if process is None:
            return
        log.info("model is being compiled", part=key.part)
        threading.Thread(target=self._wait, args=[process, key], name="compiling", daemon=True).start()

    def _start(self, key: PackageKey, module: nn.Module, device: torch.device) -> subprocess.Popen[bytes] | None:
        """The process that makes the package; None where the network cannot be handed over, which is noted."""
        self._folder.prepare()
        # Without a name, so that nobody can put another network in its place.
        with tempfile.TemporaryFile(dir=self._folder.folder) as request:
            try:
                torch.save((key, module, device, torch.get_num_threads()), request)
            except (PicklingError, AttributeError, TypeError) as error:
                self.refuse(key, f"it cannot be handed over to another process: {error}")
                return None
            request.seek(0)
            return _start_process(self._folder, key, request)

    def _wait(self, process: subprocess.Popen[bytes], key: PackageKey) -> str | None:
        """Why the process has made nothing; None where it has."""
        _, said = process.communicate()
        note = self._folder.note(key.name, key.as_dict())
        if process.returncode != 0 or note is None:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            reason = ": ".join([f"the compiler ended with status {process.returncode}", *last])
            self.refuse(key, reason)
            return reason
        if note.reason is not None:
            log.warning("model not compiled", part=key.part, reason=note.reason)
            return note.reason
        log.info("model compiled", part=key.part, seconds=note.seconds)
        return None


def _start_process(folder: PackageFolder, key: PackageKey, request: IO[bytes]) -> subprocess.Popen[bytes]:
    place = str(folder.workplace(key.name))
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        # Whatever the compilers leave behind goes with this folder.
        "TMPDIR": place,
        "TORCHINDUCTOR_CACHE_DIR": place,
        "TRITON_CACHE_DIR": place,
    }
    variables.pop("GLIBC_TUNABLES", None)  # of a process that keeps all memory that it once had
    if key.device == "cpu":
        variables["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    command = [sys.executable, "-m", "shopvision.encoders.compiled.compile_process"]
    arguments = [str(folder.folder), key.name, str(get_settings().compiled_bytes), str(os.getpid())]
    return subprocess.Popen(
        [*command, *arguments],
        env=variables,
        stdin=request,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
