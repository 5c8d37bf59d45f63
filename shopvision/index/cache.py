"""Files of generations on this machine's disk: downloaded once, verified, named by their content."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shopvision.errors import JobError, TransientError
from shopvision.index.manifest import StoredFile
from shopvision.storage import ObjectStore, sha256_of

BLOCK_BYTES = 2**20
PARTIAL = "partial-"


class FileCache:
    """One folder per index name. Files that are mapped may be removed: the mapping outlives the name."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder = folder
        self._store = store

    def _path(self, file: StoredFile) -> Path:
        return self.folder / f"{file.sha256}{Path(file.key).suffix}"

    def fetch(self, file: StoredFile) -> Path:
        """Local path of ``file``, downloaded and verified where it is not there yet.

        Raises:
            ObjectMissing: the store no longer has it.
            JobError: the disk is full.
            TransientError: what arrived is not what the manifest describes.
        """
        target = self._path(file)
        if target.exists():
            return target
        with self._clear_disk_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=PARTIAL, dir=self.folder)
            os.close(descriptor)
            temporary = Path(name)
            try:
                self._store.download(file.key, temporary)
                if sha256_of(temporary) != file.sha256:
                    raise TransientError(
                        f"{self._store.url}/{file.key} arrived damaged: its sha256 is not the manifest's."
                    )
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return target

    def adopt(self, path: Path, file: StoredFile) -> None:
        """Move a file that was made here into the cache, so that it need not be downloaded again."""
        path.replace(self._path(file))

    def keep_only(self, files: Iterable[StoredFile]) -> None:
        """Remove every other file. Another process's reader that misses one downloads it again."""
        wanted = {self._path(file).name for file in files}
        for path in self.folder.glob("*"):
            if path.is_file() and path.name not in wanted and not path.name.startswith(PARTIAL):
                with contextlib.suppress(OSError):
                    path.unlink()

    @contextmanager
    def _clear_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise JobError(
                    f"No space left for index files in {self.folder}: free disk space, or move SHOPVISION_HOME."
                ) from None
            raise
