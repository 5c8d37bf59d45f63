"""Serving an index without a database: follow ``current``, download, map, swap."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock, Thread

import structlog
from numpy import float32
from numpy.typing import NDArray

from shopvision.errors import JobError, ShopvisionError, UserError
from shopvision.index.cache import FileCache
from shopvision.index.current import read_current, read_manifest
from shopvision.index.generation import Generation, Hit
from shopvision.index.ids import Ids
from shopvision.storage import ObjectMissing, ObjectStore

log = structlog.get_logger(__name__)

REFRESH_ATTEMPTS = 4
RETRY_SECONDS = 30.0  # after a look that failed: each may wait for the store for a minute


class IndexReader:
    """Searches the current generation of an index; safe to use from many threads.

    ``refresh()`` swaps in a newer generation. Queries that began before keep the old one until they end, because they
    hold the ``Generation`` object; a failed refresh leaves the old one serving. No query waits for a download but those
    that come before there is any generation: later ones are fetched and opened by a thread of their own.
    """

    def __init__(self, store: ObjectStore, name: str, cache_dir: Path, *, follow_seconds: float | None = None) -> None:
        """``follow_seconds``: ``generation()`` has it look again when the last look is older; by default never."""
        self._store = store
        self._name = name
        self._cache = FileCache(cache_dir / name, store)
        self._refreshing = Lock()
        self._noting = Lock()
        self._following = False
        self._generation: Generation | None = None
        self._follow_seconds = follow_seconds
        self._look_again = 0.0

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
        """The generation that serves now, opened on first use. Hold it to ask it several questions.

        Where it is time to look for another one, that begins and this one is returned: a newer one is fetched meanwhile
        and serves once it is open. Where a look fails, the generation that served before goes on serving.
        """
        if self._generation is None:
            self._look_again = time.monotonic() + (self._follow_seconds or 0.0)
            self.refresh()
        elif self._is_due():
            Thread(target=self._follow, name=f"follow index {self._name}", daemon=True).start()
        if self._generation is None:
            raise AssertionError("refresh() sets the generation or raises")
        return self._generation

    def _is_due(self) -> bool:
        """Whether this thread is the one to have a look begin; the others go on with what is there."""
        if self._follow_seconds is None:
            return False
        with self._noting:
            due = not self._following and time.monotonic() >= self._look_again
            self._following |= due
            return due

    def _follow(self) -> None:
        pause = self._follow_seconds or 0.0
        try:
            self.refresh()
        except ShopvisionError as error:
            pause = RETRY_SECONDS
            log.warning("serving the former generation", index=self._name, reason=str(error))
        except Exception:
            pause = RETRY_SECONDS
            log.exception("serving the former generation", index=self._name)
        finally:
            with self._noting:
                self._look_again = time.monotonic() + pause
                self._following = False

    def search(
        self,
        vectors: NDArray[float32],
        k: int,
        category: str | None = None,
        *,
        soft: bool = True,
        pictures: Ids | None = None,
    ) -> list[list[Hit]]:
        """``Generation.search`` of the generation that serves now."""
        return self.generation().search(vectors, k, category, soft=soft, pictures=pictures)
