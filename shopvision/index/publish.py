"""Publishing: everything that changed in Postgres becomes a new generation, or nothing happens at all.

The order, and what a crash in each step leaves behind::

    lock, snapshot, build, gate   nothing
    upload, manifest last         files that nothing refers to, collected later
    move current                  a complete generation that is served; the next publisher writes its row
    rows of the database          -

The notes of what changed (``index_changes``) are deleted together with writing the row. Where that was lost, the same
pictures are taken once more: a delta holds states, not steps, so taking them twice is harmless.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from shopvision.database import connect
from shopvision.errors import ShopvisionError, TransientError, UserError
from shopvision.index import changes, generation_rows
from shopvision.index.cache import FileCache
from shopvision.index.current import move_current
from shopvision.index.drafts import Draft, FullBuildNeededError, Target, delta_draft, full_draft
from shopvision.index.gate import GenerationRefused
from shopvision.index.generation_rows import Position
from shopvision.index.manifest import Current, Manifest, StoredFile, manifest_key, new_path
from shopvision.index.publisher_lock import PublisherLock, publisher_lock
from shopvision.index.tables import IndexGeneration
from shopvision.models.tables import ModelVersion
from shopvision.settings import get_settings
from shopvision.storage import ObjectMissing, ObjectStore, open_store, sha256_of

if TYPE_CHECKING:
    from shopvision.models.registry import ModelVersionRef

log = structlog.get_logger(__name__)

WORK = "build-"


@dataclass(frozen=True)
class PublishReport:
    """What a publication did.

    Attributes:
        path: the new generation; ``None`` where nothing had changed.
        kind: full, delta or unchanged.
        counts: live, base, delta and tombstones, in vectors, of the generation that is current now.
        bytes_uploaded: everything this publication sent to the store.
        seconds: from taking the lock to the end.
    """

    path: str | None
    kind: str
    counts: dict[str, int]
    bytes_uploaded: int
    seconds: float


def publish(
    name: str, ref: ModelVersionRef, store: ObjectStore | None = None, *, force_full: bool = False
) -> PublishReport:
    """Bring the index ``name`` up to what Postgres holds of the model version ``ref``.

    Writes a delta on top of the current generation where that is the newest one, of the same model, and little changed;
    else a full generation. A model that was not served before gets its generation beside the old one, and searches move
    over when that has passed its gate.

    Raises:
        GenerationRefused: the gate said no; ``current`` is untouched, and the reason stands in ``index_generations``.
        JobError: not enough memory or disk, no vectors, vectors of mixed dimensions.
        TransientError: the store is away, or another publisher was faster.
    """
    store = store or open_store()
    with publisher_lock(name) as lock:
        return publish_locked(name, ref.model_version_id, f"{ref.name}:{ref.tag}", store, lock, force_full=force_full)


def publish_locked(
    name: str, model_version_id: int, model: str, store: ObjectStore, lock: PublisherLock, *, force_full: bool
) -> PublishReport:
    """``publish`` for a caller that holds the lock."""
    started = time.monotonic()
    target = Target(name, new_path(name, model), model_version_id, model)
    _require_own_changes(target)
    position = generation_rows.reconcile(store, name)
    cache = index_cache(name, store)
    with _workspace(cache.folder) as folder:
        try:
            draft = _draft(target, position, store, cache, folder, force_full=force_full)
        except GenerationRefused as error:
            with connect() as connection:
                generation_rows.record_refused(connection, name, target.path, model_version_id, str(error))
            raise GenerationRefused(f"Index {name!r}, {model}: {error} The generation served before stays.") from None
        if draft is None or draft.manifest is None:
            return _unchanged(target, position, draft, started)
        uploaded = _go_live(draft.manifest, draft, position, store, lock)
        for file, path in draft.files.items():
            cache.adopt(path, file)
        cache.keep_only(draft.manifest.files)
    log.info("generation published", index=name, generation=target.path, kind=draft.manifest.kind, bytes=uploaded)
    counts = draft.manifest.counts.model_dump()
    return PublishReport(target.path, draft.manifest.kind, counts, uploaded, time.monotonic() - started)


def compact(name: str, store: ObjectStore | None = None) -> PublishReport:
    """Write a full generation of the current one's model now. Raises as ``publish`` does."""
    store = store or open_store()
    with publisher_lock(name) as lock:
        generation_rows.reconcile(store, name)
        query = (
            select(ModelVersion.model_version_id, ModelVersion.name, ModelVersion.tag)
            .join(IndexGeneration, IndexGeneration.model_version_id == ModelVersion.model_version_id)
            .where(IndexGeneration.name == name, IndexGeneration.state == "published")
            .order_by(IndexGeneration.is_current.desc(), IndexGeneration.generation_id.desc())
        )
        with connect() as connection:
            row = connection.execute(query.limit(1)).first()
        if row is None:
            raise UserError(f"Index {name!r} was never published: run a refresh_embeddings job first.")
        return publish_locked(name, row.model_version_id, f"{row.name}:{row.tag}", store, lock, force_full=True)


def index_cache(name: str, store: ObjectStore) -> FileCache:
    """The files of the index ``name`` on this machine."""
    return FileCache(get_settings().cache_dir / "index" / name, store)


def _require_own_changes(target: Target) -> None:
    query = select(IndexGeneration.name).where(
        IndexGeneration.model_version_id == target.model_version_id,
        IndexGeneration.name != target.name,
        IndexGeneration.state == "published",
    )
    with connect() as connection:
        other = connection.scalar(query.limit(1))
    if other is not None:
        raise UserError(
            f"Model {target.model} feeds index {other!r} already, and changes are noted once per model: "
            "import it under another tag to feed a second index."
        )


@contextmanager
def _workspace(cache: Path) -> Iterator[Path]:
    """An empty folder beside the cached files; what a killed publisher left is removed, as we hold the lock."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(f"{WORK}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=WORK, dir=cache, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _draft(
    target: Target, position: Position, store: ObjectStore, cache: FileCache, folder: Path, *, force_full: bool
) -> Draft | None:
    current = position.manifest
    same_model = current is not None and current.model_version_id == target.model_version_id
    if current is not None and same_model and not force_full and _may_extend(current, store):
        try:
            return delta_draft(target, current, cache, folder)
        except (FullBuildNeededError, ObjectMissing) as reason:
            log.info("building a full generation", index=target.name, reason=str(reason))
    dimension = current.dimension if current is not None and same_model else None
    return full_draft(target, dimension, position.current.generation if position.current else None, folder)


def _may_extend(current: Manifest, store: ObjectStore) -> bool:
    """After a rollback it may not: the generation published later took notes away that this one lacks."""
    return generation_rows.newest_published(current.name) == current.path and not _missing(store, current.files)


def _missing(store: ObjectStore, files: tuple[StoredFile, ...]) -> list[str]:
    missing = []
    for file in files:
        try:
            if store.stat(file.key).size != file.bytes:
                missing.append(file.key)
        except ObjectMissing:
            missing.append(file.key)
    return missing


def _unchanged(target: Target, position: Position, draft: Draft | None, started: float) -> PublishReport:
    if draft is not None:
        with connect() as connection:
            changes.consume(connection, target.model_version_id, draft.changes)
    counts = position.manifest.counts.model_dump() if position.manifest else {}
    return PublishReport(None, "unchanged", counts, 0, time.monotonic() - started)


def _go_live(manifest: Manifest, draft: Draft, position: Position, store: ObjectStore, lock: PublisherLock) -> int:
    """Upload, check, move ``current``, write the rows; returns the bytes uploaded."""
    document = manifest.encoded()
    key = manifest_key(manifest.path)
    current = Current(generation=manifest.path, manifest_sha256=sha256_of(document), previous=manifest.parent)
    try:
        for file, path in draft.files.items():
            store.put(file.key, path, sha256=file.sha256)
        store.put(key, document)
        if missing := _missing(store, manifest.files):
            raise TransientError(f"The upload of {manifest.path} is incomplete ({missing[0]}): it is not published.")
        lock.require_held()
    except ShopvisionError:
        with contextlib.suppress(ShopvisionError):
            store.delete([key, *(file.key for file in draft.files)])
        raise
    move_current(store, manifest.name, current, position.etag)
    uploaded = sum(file.bytes for file in draft.files) + len(document)
    with connect() as connection:
        generation_rows.record(connection, manifest, uploaded)
        generation_rows.mark_current(connection, manifest.name, manifest.path)
        changes.consume(connection, manifest.model_version_id, draft.changes)
    return uploaded
