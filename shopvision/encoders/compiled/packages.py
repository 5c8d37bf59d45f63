"""Where packages lie: a shared library for each key, and a note of its sha256 that is written after it.

A library is code that will run in this process. So it is loaded only if this user, or root, owns it and the folder, no
one else may write to them, the note is about this key and the sha256 is right. Whatever is not is thrown away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from shopvision.storage.digests import sha256_of

log = structlog.get_logger(__name__)

# A compiler may have been installed meanwhile, or memory be free.
RETRY_SECONDS = 24 * 3600.0
UNUSED_SECONDS = 60 * 24 * 3600.0


@dataclass(frozen=True)
class Note:
    """What is known about a package.

    Attributes:
        key: ``PackageKey.as_dict()``.
        sha256: of the library; None where it could not be made.
        reason: why not.
        seconds: that making it took.
        made_at: seconds since 1970.
    """

    key: dict[str, Any]
    sha256: str | None
    reason: str | None
    seconds: float
    made_at: float


class PackageFolder:
    """The packages of one machine and user, in one folder. Safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made or read yet. ``folder`` may be a link, as to another volume."""
        self.folder = folder.resolve()

    def library(self, name: str) -> Path:
        """Where the library of a key with this name lies, if it does."""
        return self.folder / f"{name}.so"

    def workplace(self, name: str) -> Path:
        """Where it is made; belongs to whoever holds the lock."""
        return self.folder / f"{name}.making"

    def is_empty(self) -> bool:
        """Whether there is nothing to find, so that no key needs to be worked out."""
        return not any(self.folder.glob("*.json"))

    def note(self, name: str, key: dict[str, Any]) -> Note | None:
        """The note about ``key``; None where there is none to believe."""
        path = self.folder / f"{name}.json"
        if not (_is_ours(self.folder) and _is_ours(path)):
            return None
        try:
            note = Note(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return note if note.key == key else None

    def find(self, name: str, key: dict[str, Any]) -> Path | None:
        """The library of ``key``, if it is there and sound; what is not sound is removed."""
        note = self.note(name, key)
        if note is None or note.sha256 is None:
            return None
        path = self.library(name)
        if _is_ours(path) and sha256_of(path) == note.sha256:
            os.utime(path)  # it was used: see ``prune``
            return path
        log.warning("compiled model thrown away: not the file that was made", path=str(path))
        self.remove(name)
        return None

    def refusal(self, name: str, key: dict[str, Any]) -> str | None:
        """Why this package cannot be made, as found out a short while ago; None where it may be tried."""
        note = self.note(name, key)
        if note is None or note.reason is None or time.time() - note.made_at > RETRY_SECONDS:
            return None
        return note.reason

    def keep(self, name: str, note: Note, library: Path | None = None) -> None:
        """Move a library and its note into place; whoever holds the lock of ``name`` may.

        Raises:
            OSError: no room, no rights.
        """
        self.prepare()
        if library is not None:
            _sync(library)
            library.chmod(0o600)
            library.replace(self.library(name))
        temporary = self.folder / f"{name}.json.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(note)), encoding="utf-8")
        _sync(temporary)
        temporary.replace(self.folder / f"{name}.json")

    def remove(self, name: str) -> None:
        """Forget a package. Processes that have it loaded go on with it."""
        for path in (self.folder / f"{name}.json", self.library(name)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("compiled model cannot be removed", path=str(path), reason=error.strerror)

    def prepare(self) -> None:
        """Make the folder, for this user alone.

        Raises:
            OSError: it cannot be made, or belongs to somebody else.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(self.folder):
            raise PermissionError(0, "it belongs to another user, or others may write to it", str(self.folder))

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        """The right to make a package; gives False where another process has it and ``wait`` is not wanted.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.prepare()
        with (self.folder / f"{name}.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def prune(self, most_bytes: int, keep: str) -> None:
        """Remove what nobody used for two months, what is over the budget, and what broken-off work has left.

        Args:
            most_bytes: of all libraries together; those that were not used for longest go first.
            keep: the name of the one that stays in any case.
        """
        now, total = time.time(), 0
        libraries = []
        for path in self.folder.glob("*.so"):
            try:
                found = path.stat()
            except OSError:
                continue
            libraries.append((found.st_mtime, found.st_size, path.stem))
        for used, size, name in sorted(libraries, reverse=True):
            total += size
            if name != keep and (total > most_bytes or now - used > UNUSED_SECONDS):
                self.remove(name)
        for path in self.folder.iterdir():
            name = path.name.partition(".")[0]
            if name == keep or path.suffix not in {".making", ".lock"}:
                continue
            with self.lock(name, wait=False) as free:
                if free and path.suffix == ".making":
                    shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("*.json"):
            if not self.library(path.stem).exists() and _age(path) > RETRY_SECONDS:
                path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether only this user, or root, can have put it there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return kind and found.st_uid in {0, os.getuid()} and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
