"""Letting searches go back to an earlier generation."""

from __future__ import annotations

import structlog

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.index import generation_rows
from shopvision.index.current import move_current
from shopvision.index.manifest import Current, manifest_key
from shopvision.index.publisher_lock import publisher_lock
from shopvision.storage import ObjectStore, open_store, sha256_of

log = structlog.get_logger(__name__)


def rollback(name: str, store: ObjectStore | None = None) -> str:
    """Let searches go back to the generation that was current before; returns its path.

    The next publication writes a full generation, because what changed since was noted only once.

    Raises:
        UserError: there is no earlier generation that is still kept.
        TransientError: another process publishes now, or the store is away.
    """
    store = store or open_store()
    with publisher_lock(name) as lock:
        position = generation_rows.reconcile(store, name)
        if position.current is None:
            raise UserError(f"Index {name!r} was never published: there is nothing to roll back.")
        kept = generation_rows.published_manifests(name)
        previous = position.current.previous
        if previous is None or previous not in kept:
            raise UserError(f"Index {name!r} keeps no generation from before {position.current.generation}.")
        data = store.get(manifest_key(previous))
        manifest = kept[previous]
        for file in manifest.files:
            store.stat(file.key)
        lock.require_held()
        target = Current(generation=previous, manifest_sha256=sha256_of(data), previous=manifest.parent)
        move_current(store, name, target, position.etag)
        with connect() as connection:
            generation_rows.mark_current(connection, name, previous)
    log.warning("index rolled back", index=name, generation=previous)
    return previous
