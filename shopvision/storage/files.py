"""A folder as an object store: whole files by atomic rename, conditions under a lock file."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from shopvision.errors import TransientError, UserError
from shopvision.storage.base import ObjectMissing, ObjectStat, ObjectStore, PreconditionFailed
from shopvision.storage.digests import sha256_of

PRIVATE = ".shopvision-store"  # lock and half-written files, in the root but never listed


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


class FileStore(ObjectStore):
    """Objects as files below ``root``, safe for many processes of one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()
        try:
            (root / PRIVATE).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Object store {self.url}: cannot create the folder ({error.strerror}).") from None

    @override
    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        with self._named_errors(key), self._path(key).open("rb") as file:
            return file.read(), _etag(os.fstat(file.fileno()))

    @override
    def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        sha256: str | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        target, sha256 = self._path(key), sha256 or sha256_of(data)
        with self._named_errors(key):
            descriptor, name = tempfile.mkstemp(dir=self.root / PRIVATE)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    if isinstance(data, Path):
                        with data.open("rb") as source:
                            shutil.copyfileobj(source, file, 2**20)
                    else:
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if sha256_of(temporary) != sha256:
                    raise TransientError(f"{self.url}/{key} arrived damaged: its sha256 is not that of what was sent.")
                with self._lock():
                    self._check(target, key, if_match, if_none_match=if_none_match)
                    return self._move(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    @staticmethod
    def _check(target: Path, key: str, if_match: str | None, *, if_none_match: bool) -> None:
        found = _etag(target.stat()) if target.exists() else None
        if (if_match is not None and found != if_match) or (if_none_match and found is not None):
            raise PreconditionFailed(f"{key} was written by someone else meanwhile.")

    @staticmethod
    def _move(temporary: Path, target: Path) -> str:
        # The kernel's clock ticks too coarsely to tell two writes apart, and inode numbers are reused.
        os.utime(temporary, ns=(time.time_ns(), time.time_ns()))
        etag = _etag(temporary.stat())
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return etag

    @override
    def download(self, key: str, path: Path) -> None:
        with self._named_errors(key):
            source = self._path(key).open("rb")
        with source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)

    @override
    def stat(self, key: str) -> ObjectStat:
        with self._named_errors(key):
            return self._stat(key, self._path(key))

    @override
    def list(self, prefix: str) -> Iterator[ObjectStat]:
        folder = self.root / prefix.rpartition("/")[0]
        for path in sorted(folder.rglob("*")):
            key = path.relative_to(self.root).as_posix()
            if not key.startswith(prefix) or key.startswith(PRIVATE):
                continue
            try:
                if path.is_file():
                    yield self._stat(key, path)
            except FileNotFoundError:
                continue  # removed while we looked

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with self._named_errors(key), self._lock():
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder == self.root or not folder.is_dir() or any(folder.iterdir()):
                        break
                    folder.rmdir()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in {"", ".", ".."} for part in parts) or parts[0] == PRIVATE:
            raise UserError(f"Object key {key!r} is not a plain relative path.")
        return self.root.joinpath(*parts)

    @staticmethod
    def _stat(key: str, path: Path) -> ObjectStat:
        status = path.stat()
        return ObjectStat(key, status.st_size, _etag(status), datetime.fromtimestamp(status.st_mtime, UTC))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # flock belongs to the open file, so it keeps apart threads as well as processes.
        with (self.root / PRIVATE / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _named_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(f"{self.url}/{key} does not exist.") from None
        except PermissionError as error:
            raise UserError(f"{self.url}/{key}: no right to read or write {error.filename}.") from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise TransientError(f"Object store {self.url} is full: free disk space there.") from None
            raise
