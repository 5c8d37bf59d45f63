"""Which files a job may be told to read: whoever may send a job must not therefore read every file of a machine."""

from __future__ import annotations

import os
from urllib.parse import unquote_to_bytes

from shopvision.errors import UserError
from shopvision.images.roots import allowed_image_roots
from shopvision.settings import get_settings


def require_location(location: str) -> str:
    """The location itself, of a table that a job is to read: whether the file is there only the worker can tell.

    Raises:
        ValueError: another kind of address, or a name that tells no format.
    """
    from shopvision.catalogue.source_files import format_of

    if "://" in location and not location.startswith(("s3://", "file:///")):
        raise ValueError(f"{location}: give s3://bucket/key, file:///folder/file, or a path")
    if format_of(location)[0] is None:
        raise ValueError(f"{location}: unknown format; name it .jsonl, .csv or .parquet (also .gz)")
    return location


def allowed_location(location: str) -> str:
    """The location as ``open_source`` takes it.

    Raises:
        UserError: a local file outside the allowed folders, or another kind of address.
    """
    if location.startswith("s3://"):
        return location
    if location.startswith("file:///"):
        location = os.fsdecode(unquote_to_bytes(location.removeprefix("file://")))
    elif "://" in location:
        raise UserError(f"{location}: give s3://bucket/key, file:///folder/file, or a path.")
    path = os.path.realpath(location)
    if not any(path == str(root) or path.startswith(f"{root}{os.sep}") for root in allowed_image_roots(get_settings())):
        raise UserError(f"{location} is outside the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS.")
    return path
