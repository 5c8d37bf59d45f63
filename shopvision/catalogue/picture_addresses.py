"""Where a catalogue's pictures are: a ``file`` of a record, relative to a root, becomes a picture address (uri)."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from shopvision.errors import UserError

SCHEMES = ("file:///", "s3://", "https://")
# An address is part of a unique index together with the item's id, and Postgres indexes at most 2,704 bytes a row.
MAX_URI_BYTES = 1_800
# Most paths need neither normalising nor quoting, and seeing so is ten times faster than doing it.
PLAIN_PATH = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class PictureRoot:
    """What relative picture files start from: a folder or a bucket prefix, as an address that ends with a slash."""

    url: str
    folder: Path | None = None

    @classmethod
    def parse(cls, root: str) -> PictureRoot:
        """A root from ``s3://bucket/prefix``, ``https://host/folder`` or the path of a local folder.

        Raises:
            UserError: the local folder does not exist.
        """
        if root.startswith(("s3://", "https://")):
            return cls(root.rstrip("/") + "/")
        folder = Path(root).resolve()
        if not folder.is_dir():
            raise UserError(
                f"--images {root}: there is no such folder. Name the folder that the pictures' paths start from."
            )
        return cls(folder.as_uri().rstrip("/") + "/", folder)

    @property
    def quoted(self) -> bool:
        """Whether paths are percent-encoded in this kind of address (object keys are not)."""
        return not self.url.startswith("s3://")

    def uri(self, file: str) -> str:
        """The address of ``file``.

        Raises:
            ValueError: the path is absolute or leaves the root.
        """
        if PLAIN_PATH.fullmatch(file):
            return self.url + file
        path = posixpath.normpath(file)
        if path.startswith(("/", "../")) or path in {".", ".."}:
            raise ValueError(f"file {file[:80]!r} is not inside the picture folder; give a path below it")
        return self.url + (quote(path) if self.quoted else path)


def picture_uri(uri: str | None, file: str | None, root: PictureRoot | None) -> str:
    """The address of a picture that a record names by ``uri`` or by ``file``.

    Raises:
        ValueError: neither is given, the kind of address is not supported, it is too long or leaves the root.
    """
    if not uri:
        if not file:
            raise ValueError("neither `uri` nor `file`; give one of them")
        if root is None:
            raise ValueError(f"file {file[:80]!r} has no folder to start from; give a full `uri`")
        uri = root.uri(file)
    elif not uri.startswith(SCHEMES):
        raise ValueError(f"uri {uri[:80]!r} is not supported; use {', '.join(SCHEMES)} or a `file`")
    if len(uri) > MAX_URI_BYTES or (not uri.isascii() and len(uri.encode()) > MAX_URI_BYTES):
        raise ValueError(f"an address of more than {MAX_URI_BYTES:,} bytes; use a shorter, permanent one")
    return uri
