"""One reader for each index and process: files are opened once, and all searches see the same generation."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from shopvision.index.reader import IndexReader
from shopvision.settings import get_settings
from shopvision.storage import open_store

FOLLOW_SECONDS = 1.0

_open: dict[tuple[str, str, Path], IndexReader] = {}
_opening = Lock()


def open_index(name: str | None = None) -> IndexReader:
    """The reader of an index, one for the whole process; it follows ``current`` within a second.

    Args:
        name: by default the settings'.

    Raises:
        UserError: no object store is configured, or its address cannot be read.
    """
    settings, store = get_settings(), open_store()
    name = name or settings.index_name
    known = store.url, name, settings.cache_dir
    with _opening:
        if known not in _open:
            _open[known] = IndexReader(store, name, settings.cache_dir / "index", follow_seconds=FOLLOW_SECONDS)
        return _open[known]


def close_readers() -> None:
    """Let go of every reader of this process; queries that run keep theirs until they end."""
    with _opening:
        _open.clear()
