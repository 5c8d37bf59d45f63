"""From an address to a store."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from shopvision.errors import UserError
from shopvision.settings import get_settings
from shopvision.storage.base import ObjectStore

_open: dict[tuple[str, str | None], ObjectStore] = {}
_opening = Lock()


def open_store(url: str | None = None) -> ObjectStore:
    """The store at ``url`` (``s3://bucket/prefix`` or ``file:///dir``), by default the one in the settings.

    One for each address and process: its connections are shared, and what it can do is tried out once.

    Raises:
        UserError: no store is configured, or the address is not one of the two kinds.
    """
    settings = get_settings()
    url = url or settings.object_store
    if not url:
        raise UserError("No object store: set SHOPVISION_OBJECT_STORE, or run `shopvision stack up` for a local one.")
    with _opening:
        known = url, settings.s3_endpoint_url
        if known not in _open:
            _open[known] = _new_store(url, settings.s3_endpoint_url)
        return _open[known]


def close_stores() -> None:
    """Close every store of this process (a new process, or new settings)."""
    with _opening:
        while _open:
            _open.popitem()[1].close()


def _new_store(url: str, endpoint_url: str | None) -> ObjectStore:
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        from shopvision.storage.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        from shopvision.storage.files import FileStore

        return FileStore(Path(unquote(parts.path)))
    raise UserError(f"Object store {url!r} is not an address like s3://bucket/prefix or file:///folder.")
