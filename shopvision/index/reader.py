"""Serving an index without a database: follow ``current``, download, map, swap."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import structlog
from numpy import float32
from numpy.typing import NDArray

from shopvision.errors import JobError, UserError
from shopvision.index.cache import FileCache
from shopvision.index.current import read_current, read_manifest
from shopvision.index.generation import Generation, Hit
from shopvision.storage import ObjectMissing, ObjectStore

log = structlog.get_logger(__name__)

REFRESH_ATTEMPTS = 4


class IndexReader:
    """Searches the current generation of an index; safe to use from many threads.

    ``refresh()`` swaps in a newer generation. Queries that began before keep the old one until they end, because they
    hold the ``Generation`` object; a failed refresh leaves the old one serving.
    """

    def __init__(self, store: ObjectStore, name: str, cache_dir: Path) -> None:
        self._store = store
        self._name = name
        self._cache = FileCache(cache_dir / name, store)
        self._refreshing = Lock()
        self._generation: Generation | None = None

    def refresh(self) -> bool:
        """Follow ``current``; returns whether another generation serves now.

        Raises:
            UserError: nothing was ever published under this name.
            JobError: the disk is full, or files of the current generation are missing.
            TransientError: the store is away.
        """
        with self._refreshing:
            for _ in range(REFRESH_ATTEMPTS):
                found = read_current(self._store, self._name)
                if found is None:
                    raise UserError(f"Index {self._name!r} was never published: run a refresh_embeddings job first.")
                current = found[0]
                if self._generation is not None and self._generation.path == current.generation:
                    return False
                try:
                    manifest = read_manifest(self._store, current)
                    self._generation = Generation(manifest, self._cache.fetch)
                except (ObjectMissing, FileNotFoundError) as error:
                    # Collected or evicted while we were fetching: current has moved on meanwhile.
                    log.info("generation vanished while opening", generation=current.generation, missing=str(error))
                    continue
                self._cache.keep_only(manifest.files)
                return True
        raise JobError(
            f"Files of the current generation of index {self._name!r} are missing in {self._store.url}: "
            "run `shopvision index verify`, then `compact`."
        )

    def generation(self) -> Generation:
        """The generation that serves now, opened on first use. Hold it to ask it several questions."""
        generation = self._generation
        if generation is None:
            self.refresh()
            generation = self._generation
        if generation is None:
            raise AssertionError("refresh() sets the generation or raises")
        return generation

    def search(
        self, vectors: NDArray[float32], k: int, category: str | None = None, *, soft: bool = True
    ) -> list[list[Hit]]:
        """``Generation.search`` of the generation that serves now."""
        return self.generation().search(vectors, k, category, soft=soft)
