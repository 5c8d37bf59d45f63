"""Pictures from folders of this machine that are allowed by name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

from shopvision.errors import ItemError
from shopvision.images.roots import allowed_image_roots
from shopvision.images.transfer import check_length
from shopvision.settings import Settings

# To look names up in, which takes no right to list them. Elsewhere than on Linux a folder is opened for reading.
FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# Neither follow a link nor wait for a pipe's other end.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What opening says of a link that must not be followed, to a folder or to a file.
IS_A_LINK = {errno.ENOTDIR, errno.ELOOP}


class LocalPictures:
    """``file:///folder/picture.jpg`` below one of the allowed folders; links may lead from one place there to another.

    Below an allowed folder every name is opened in the folder before it and no link is followed: whoever writes there
    could otherwise swap a link in after the check. Where there are links, what they lead to is opened in this way.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._roots = [f"{str(root).rstrip('/')}/" for root in allowed_image_roots(settings)]

    def fetch(self, uri: str) -> tuple[bytes, str]:
        """One file's bytes and its mark.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        with _errors(uri), self._found(uri) as (folder, name, before):
            check_length(self._settings, before.st_size, uri)
            with os.fdopen(os.open(name, FILE_FLAGS, dir_fd=folder), "rb", buffering=0) as file:
                found = _ordinary(os.fstat(file.fileno()), uri)  # of what was opened, whatever the name means by now
                check_length(self._settings, found.st_size, uri)
                data = file.read()
        check_length(self._settings, len(data), uri)
        return data, _mark(found)

    def mark(self, uri: str) -> str:
        """Size, times of modification and of change, and inode.

        A file may be replaced within one tick of the clock, which the inode tells, or be written over in place and get
        its former modification time back, which the time of change tells.

        Raises:
            ItemError: with one of the codes in ``shopvision.images.reasons``.
        """
        with _errors(uri), self._found(uri) as (_, _, found):
            return _mark(found)

    @contextmanager
    def _found(self, uri: str) -> Iterator[tuple[int, str, os.stat_result]]:
        """The file's folder, opened; its name there; and what it is, before opening, which can have effects."""
        path = _path(uri)
        try:
            place = self._look(path)
        except OSError as error:
            if error.errno not in IS_A_LINK:
                raise
            place = None
        if place is None:
            path = os.path.realpath(path)
            place = self._look(path)
        if place is None:
            if f"{path}/" in self._roots:
                raise _not_a_file(uri)
            raise ItemError(
                "outside_roots", f"{uri} leads out of the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS."
            )
        folder, name, found = place
        try:
            yield folder, name, _ordinary(found, uri)
        finally:
            os.close(folder)

    def _look(self, path: str) -> tuple[int, str, os.stat_result] | None:
        """Like ``_found``, without following anything; None where the path as it stands is below no allowed folder."""
        root = next((root for root in self._roots if path.startswith(root)), None)
        if root is None:
            return None
        *folders, name = path.removeprefix(root).split("/")
        if not {"", ".", ".."}.isdisjoint((*folders, name)):
            return None
        folder = os.open(root.rstrip("/") or "/", FOLDER_FLAGS)
        try:
            for inner in folders:
                outer, folder = folder, os.open(inner, FOLDER_FLAGS, dir_fd=folder)
                os.close(outer)
            found = _unfollowed(name, folder)
        except OSError:
            os.close(folder)
            raise
        return folder, name, found


def _path(uri: str) -> str:
    if not uri.startswith("file:///"):
        raise ItemError("bad_address", f"{uri}: a file address has three slashes, file:///folder/picture.jpg.")
    # '?' and '#' are ordinary characters of a file name, and a name need not be UTF-8
    path = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
    if "\0" in path:
        raise ItemError("bad_address", f"{uri}: the path holds a NUL character.")
    return path


def _unfollowed(name: str, folder: int) -> os.stat_result:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return found


def _ordinary(found: os.stat_result, uri: str) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        raise _not_a_file(uri)
    return found


def _not_a_file(uri: str) -> ItemError:
    return ItemError("not_a_file", f"{uri} is not an ordinary file.")


def _mark(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"


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
