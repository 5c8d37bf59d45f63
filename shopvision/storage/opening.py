"""From an address to a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shopvision.errors import UserError
from shopvision.settings import get_settings
from shopvision.storage.base import ObjectStore


def open_store(url: str | None = None) -> ObjectStore:
    """The store at ``url`` (``s3://bucket/prefix`` or ``file:///dir``), by default the one in the settings.

    Raises:
        UserError: no store is configured, or the address is not one of the two kinds.
    """
    settings = get_settings()
    url = url or settings.object_store
    if not url:
        raise UserError("No object store: set SHOPVISION_OBJECT_STORE, or run `shopvision stack up` for a local one.")
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        from shopvision.storage.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=settings.s3_endpoint_url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        from shopvision.storage.files import FileStore

        return FileStore(Path(unquote(parts.path)))
    raise UserError(f"Object store {url!r} is not an address like s3://bucket/prefix or file:///folder.")
