"""A damaged or lost ``current``: let it point to the last good generation again."""

from __future__ import annotations

import structlog

from shopvision.database import connect
from shopvision.errors import JobError
from shopvision.index import generation_rows
from shopvision.index.current import move_current, read_current, read_manifest
from shopvision.index.manifest import Current, Manifest, current_key, manifest_key
from shopvision.index.publisher_lock import publisher_lock
from shopvision.index.verifying import damaged_files
from shopvision.storage import ObjectMissing, ObjectStore, open_store, sha256_of

log = structlog.get_logger(__name__)


def repair(name: str, store: ObjectStore | None = None) -> str:
    """Make ``current`` lead to a whole generation; returns one line that says what was done.

    The generation is the one the database calls current, else the newest published one whose files are all there and
    have their digests. Where that is an older one, the next publication writes a full generation.

    Raises:
        JobError: no published generation is whole.
        TransientError: another process publishes now, or the store is away.
    """
    store = store or open_store()
    with publisher_lock(name) as lock:
        wrong = _fault(store, name)
        if wrong is None:
            return f"{current_key(name)} is sound: nothing to repair."
        newest_first = sorted(
            generation_rows.published_manifests(name).values(), key=lambda manifest: manifest.created_at, reverse=True
        )
        served = generation_rows.current_path(name)
        for manifest in sorted(newest_first, key=lambda manifest: manifest.path != served):
            if not _is_whole(store, manifest):
                continue
            lock.require_held()
            data = manifest.encoded()
            target = Current(generation=manifest.path, manifest_sha256=sha256_of(data), previous=manifest.parent)
            move_current(store, name, target, _etag(store, name))
            with connect() as connection:
                generation_rows.mark_current(connection, name, manifest.path)
            log.warning("index repaired", index=name, generation=manifest.path, reason=wrong)
            return f"{wrong} Now {manifest.path} is current: {manifest.counts.live} vectors of {manifest.model}."
    raise JobError(
        f"{wrong} No published generation of index {name!r} is whole: delete {store.url}/{current_key(name)} and run a "
        "refresh_embeddings job."
    )


def _fault(store: ObjectStore, name: str) -> str | None:
    """One line on what is wrong with ``current`` or what it leads to; ``None`` where nothing is."""
    try:
        found = read_current(store, name)
        if found is None:
            return f"{store.url}/{current_key(name)} is missing."
        problems = damaged_files(store, read_manifest(store, found[0]))
    except (ObjectMissing, JobError) as error:
        return str(error)
    return problems[0] if problems else None


def _is_whole(store: ObjectStore, manifest: Manifest) -> bool:
    try:
        return store.get(manifest_key(manifest.path)) == manifest.encoded() and not damaged_files(store, manifest)
    except ObjectMissing as error:
        log.info("generation is not whole", generation=manifest.path, reason=str(error))
        return False


def _etag(store: ObjectStore, name: str) -> str | None:
    try:
        return store.get_with_etag(current_key(name))[1]
    except ObjectMissing:
        return None
