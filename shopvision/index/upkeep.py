"""Looking after the generations of an index: list, verify, roll back, compact, collect."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select, text, update

from shopvision.database import among, connect, snapshot, transaction
from shopvision.errors import JobError, UserError
from shopvision.index import ledger
from shopvision.index.cache import sha256_of_file
from shopvision.index.manifest import Current, Manifest, generations_prefix, manifest_key, sha256_of
from shopvision.index.publish import PublishReport, publish_locked
from shopvision.index.reader import read_current, read_manifest
from shopvision.index.source import count_vectors, read_changes
from shopvision.index.tables import IndexGeneration
from shopvision.models.tables import ModelVersion
from shopvision.settings import get_settings
from shopvision.storage import ObjectMissing, ObjectStore, open_store

log = structlog.get_logger(__name__)

# A reader that began to download a generation just before it was superseded is done with it long before this.
GRACE = timedelta(hours=1)


@dataclass(frozen=True)
class GenerationSummary:
    """One row of ``index_generations``; sizes and recall are missing for a refused generation."""

    path: str
    model: str
    state: str
    is_current: bool
    kind: str | None
    index_type: str | None
    live: int | None
    recall: float | None
    bytes_uploaded: int
    created_at: datetime
    refused: str | None


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found; the index is sound where ``problems`` is empty.

    Attributes:
        pending: pictures that changed since and wait for the next publication.
    """

    path: str
    model: str
    files: int
    bytes: int
    live: int
    in_postgres: int
    pending: int
    problems: list[str]


@dataclass(frozen=True)
class CollectReport:
    """What ``collect_garbage`` removed: generations that can no longer be rolled back to, and objects."""

    generations: list[str]
    objects: int
    bytes: int


def list_generations(name: str) -> list[GenerationSummary]:
    """Every generation that was published, refused or collected, newest first."""
    query = (
        select(IndexGeneration, ModelVersion.name + ":" + ModelVersion.tag)
        .join(ModelVersion, ModelVersion.model_version_id == IndexGeneration.model_version_id)
        .where(IndexGeneration.name == name)
        .order_by(IndexGeneration.generation_id.desc())
    )
    with transaction() as session:
        rows = session.execute(query).all()
    return [
        GenerationSummary(
            path=row.path, model=model, state=row.state, is_current=row.is_current,
            kind=row.manifest.get("kind"), index_type=row.manifest.get("index_type"),
            live=row.manifest.get("counts", {}).get("live"), recall=row.manifest.get("recall"),
            bytes_uploaded=row.bytes_uploaded, created_at=row.created_at, refused=row.manifest.get("refused"),
        )
        for row, model in rows
    ]  # fmt: skip


def verify(name: str, store: ObjectStore | None = None) -> VerifyReport:
    """Download and hash every file of the current generation, and compare its counts with Postgres.

    Raises:
        UserError: nothing was ever published under this name.
        JobError: ``current`` or the manifest cannot be read.
    """
    store = store or open_store()
    found = read_current(store, name)
    if found is None:
        raise UserError(f"Index {name!r} was never published: run a refresh_embeddings job first.")
    try:
        manifest = read_manifest(store, found[0])
    except ObjectMissing as error:
        raise JobError(f"{error} Run `shopvision index rollback` or `shopvision index compact`.") from None
    problems = _damaged(store, manifest)
    with snapshot() as connection:
        in_postgres = count_vectors(connection, manifest.model_version_id)
        pending = len(read_changes(connection, manifest.model_version_id).image_ids)
        path = connection.scalar(
            select(IndexGeneration.path).where(IndexGeneration.name == name, IndexGeneration.is_current)
        )
    if path != manifest.path:
        problems.append(f"current is {manifest.path}, the database says {path}: the next publication mends it.")
    if pending == 0 and in_postgres != manifest.counts.live:
        problems.append(f"the index holds {manifest.counts.live} pictures, Postgres {in_postgres}: compact the index.")
    return VerifyReport(
        path=manifest.path, model=manifest.model, files=len(manifest.files) + 1,
        bytes=sum(file.bytes for file in manifest.files), live=manifest.counts.live, in_postgres=in_postgres,
        pending=pending, problems=problems,
    )  # fmt: skip


def _damaged(store: ObjectStore, manifest: Manifest) -> list[str]:
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "file"
        for file in manifest.files:
            try:
                store.download(file.key, local)
            except ObjectMissing:
                problems.append(f"{file.key} is missing: compact the index.")
                continue
            if sha256_of_file(local) != file.sha256:
                problems.append(f"{file.key} is damaged: compact the index.")
    return problems


def rollback(name: str, store: ObjectStore | None = None) -> str:
    """Let searches go back to the generation that was current before; returns its path.

    The next publication writes a full generation, because what changed since was noted only once.

    Raises:
        UserError: there is no earlier generation that is still kept.
        TransientError: another process publishes now, or the store is away.
    """
    store = store or open_store()
    with ledger.publisher_lock(name) as lock:
        position = ledger.reconcile(store, name)
        if position.current is None:
            raise UserError(f"Index {name!r} was never published: there is nothing to roll back.")
        kept = _manifests(name, "published")
        previous = position.current.previous
        if previous is None or previous not in kept:
            raise UserError(f"Index {name!r} keeps no generation from before {position.current.generation}.")
        data = store.get(manifest_key(previous))
        manifest = kept[previous]
        for file in manifest.files:
            store.stat(file.key)
        lock.require_held()
        target = Current(generation=previous, manifest_sha256=sha256_of(data), previous=manifest.parent)
        ledger.move_current(store, name, target, position.etag)
        with connect() as connection:
            ledger.mark_current(connection, name, previous)
    log.warning("index rolled back", index=name, generation=previous)
    return previous


def compact(name: str, store: ObjectStore | None = None) -> PublishReport:
    """Write a full generation of the current one's model now. Raises as ``publish`` does."""
    store = store or open_store()
    with ledger.publisher_lock(name) as lock:
        ledger.reconcile(store, name)
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


def collect_garbage(
    name: str, keep: int | None = None, store: ObjectStore | None = None, *, grace: timedelta = GRACE
) -> CollectReport:
    """Delete the files that neither a kept generation nor a reader that is just leaving one needs.

    Kept are the newest ``keep`` published generations, the current one and its predecessor, and the files of earlier
    generations that they build on. Leftovers of publishers that died go too, once they are older than ``grace``.

    Args:
        keep: by default ``settings.keep_generations``.
        grace: how long after a generation was superseded its files stay.
    """
    store = store or open_store()
    keep = max(1, get_settings().keep_generations if keep is None else keep)
    with ledger.publisher_lock(name):
        position = ledger.reconcile(store, name)
        if position.current is not None and position.manifest is None:
            raise JobError(f"The current generation of index {name!r} cannot be read: publish again before collecting.")
        protected = {position.current.generation, position.current.previous} if position.current else set()
        collected = _mark_collected(name, keep, protected, datetime.now(UTC) - grace)
        kept = _manifests(name, "published")
        needed = {file.key for manifest in kept.values() for file in manifest.files} | {manifest_key(p) for p in kept}
        finished = _paths(name, "collected", "refused")
        oldest = datetime.now(UTC) - grace
        doomed = [
            found
            for found in store.list(generations_prefix(name))
            if found.key not in needed and (_folder(found.key) in finished or found.modified < oldest)
        ]
        store.delete(found.key for found in doomed)
        _forget_idle_notes()
    return CollectReport(collected, len(doomed), sum(found.size for found in doomed))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _manifests(name: str, state: str) -> dict[str, Manifest]:
    query = select(IndexGeneration.path, IndexGeneration.manifest).where(
        IndexGeneration.name == name, IndexGeneration.state == state
    )
    with connect() as connection:
        return {path: Manifest.model_validate(document) for path, document in connection.execute(query)}


def _paths(name: str, *states: str) -> set[str]:
    query = select(IndexGeneration.path).where(IndexGeneration.name == name, IndexGeneration.state.in_(states))
    with connect() as connection:
        return set(connection.scalars(query))


def _mark_collected(name: str, keep: int, protected: set[Any], superseded_before: datetime) -> list[str]:
    """Give up the published generations beyond ``keep`` whose successor has been there long enough."""
    query = (
        select(IndexGeneration.path, IndexGeneration.published_at)
        .where(IndexGeneration.name == name, IndexGeneration.state == "published")
        .order_by(IndexGeneration.generation_id.desc())
    )
    with connect() as connection:
        rows = connection.execute(query).all()
        given_up = [
            row.path
            for row, successor in zip(rows[keep:], rows[keep - 1 :], strict=False)
            if row.path not in protected and successor.published_at < superseded_before
        ]
        connection.execute(
            update(IndexGeneration)
            .where(IndexGeneration.name == name, among(IndexGeneration.path, given_up))
            .values(state="collected")
        )
    return given_up


def _forget_idle_notes() -> None:
    """Notes of a model that no index serves and that has no vectors left would stay for ever."""
    with connect() as connection:
        connection.execute(
            text(
                "DELETE FROM index_changes WHERE model_version_id NOT IN"
                " (SELECT model_version_id FROM index_generations WHERE is_current UNION"
                "  SELECT model_version_id FROM model_versions v WHERE EXISTS"
                "  (SELECT 1 FROM embeddings e WHERE e.model_version_id = v.model_version_id))"
            )
        )
