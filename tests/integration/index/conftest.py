from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.index.reader import IndexReader
from shopvision.storage import ObjectStore, open_store


@pytest.fixture
def store(database: None, tmp_path: Path, set_environment: Callable[..., None]) -> ObjectStore:
    """A folder as object store, beside real Postgres."""
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    return open_store()


@pytest.fixture
def reader(store: ObjectStore, tmp_path: Path) -> IndexReader:
    """A reader on another machine: it shares no cache with the publisher."""
    return IndexReader(store, "shop", tmp_path / "reader")
