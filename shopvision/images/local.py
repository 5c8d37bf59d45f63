"""Pictures from folders of this machine that are allowed by name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from shopvision.errors import ItemError
from shopvision.images.roots import allowed_image_roots
from shopvision.images.transfer import check_length
from shopvision.settings import Settings


class LocalPictures:
    """``file:///folder/picture.jpg`` below one of the allowed folders, links followed before the check."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._roots = allowed_image_roots(settings)

    def fetch(self, uri: str) -> tuple[bytes, str]:
        """One file's bytes and its mark.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        path = self._path(uri)
        _stat(path, uri)  # opening a device can have effects of its own
        with _errors(uri), open(path, "rb", buffering=0, opener=_open_plainly) as file:
            found = os.fstat(file.fileno())  # of what was opened, whatever the name means by now
            check_length(self._settings, found.st_size, uri)
            data = file.read()
        check_length(self._settings, len(data), uri)
        return data, _mark(found)

    def mark(self, uri: str) -> str:
        """Size, modification time and inode, for a file may be replaced within one tick of the clock.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        return _mark(_stat(self._path(uri), uri))

    def _path(self, uri: str) -> Path:
        if not uri.startswith("file:///"):
            raise ItemError("bad_address", f"{uri}: a file address has three slashes, file:///folder/picture.jpg.")
        # '?' and '#' are ordinary characters of a file name, and a name need not be UTF-8
        name = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
        if "\0" in name:
            raise ItemError("bad_address", f"{uri}: the path holds a NUL character.")
        path = Path(os.path.realpath(name))
        if not any(path.is_relative_to(root) for root in self._roots):
            raise ItemError(
                "outside_roots", f"{uri} leads out of the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS."
            )
        return path


def _open_plainly(path: str, flags: int) -> int:
    """Neither follow a link that took the file's place meanwhile, nor wait for a pipe's other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _stat(path: Path, uri: str) -> os.stat_result:
    with _errors(uri):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ItemError("not_a_file", f"{uri} is not an ordinary file.")
    return found


def _mark(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ItemError("not_found", f"There is no file {uri}.") from None
    except PermissionError:
        raise ItemError("forbidden", f"The worker may not read {uri}.") from None
    except OSError as error:
        code = "bad_address" if error.errno in {errno.ENAMETOOLONG, errno.ELOOP} else "unavailable"
        raise ItemError(code, f"{uri}: {error.strerror}.") from None
