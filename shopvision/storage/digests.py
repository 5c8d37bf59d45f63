"""SHA-256 of what is stored."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(data: bytes | Path) -> str:
    """Hexadecimal digest of some bytes, or of a file's content."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
