"""The rows of ``index_generations``, the publishers' lock, and keeping both in step with ``current``.

``current`` is what readers see, so it is the truth; the rows follow it. A publisher that dies between moving
``current`` and writing its row leaves a generation that is complete and served: the next one under the lock takes it
into the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shopvision.database import connect, copy_rows, get_engine
from shopvision.errors import JobError, TransientError
from shopvision.index.manifest import Current, Manifest, current_key
from shopvision.index.reader import read_current, read_manifest
from shopvision.index.source import Changes
from shopvision.index.tables import IndexGeneration
from shopvision.models.tables import ModelVersion
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed

log = structlog.get_logger(__name__)

LOCK_WAIT_SECONDS = 30.0
LOCK_POLL_SECONDS = 0.2


class PublisherLock:
    """Held by whoever may move ``current`` of one index; lost with its database connection."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    def require_held(self) -> None:
        """Raise ``TransientError`` where the connection broke, and with it the lock went to somebody else."""
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            raise TransientError(f"The database connection broke while publishing index {self._name!r}.") from None


@contextmanager
def publisher_lock(name: str) -> Iterator[PublisherLock]:
    """Be the only one who publishes, rolls back or collects the index ``name``.

    Raises:
        TransientError: another process does so and did not finish in time.
    """
    key = func.hashtextextended(f"shopvision.index.{name}", 0)
    with get_engine().connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while not connection.scalar(select(func.pg_try_advisory_lock(key))):
            if time.monotonic() > deadline:
                raise TransientError(f"Index {name!r} is being published by another process: try again later.")
            time.sleep(LOCK_POLL_SECONDS)
        try:
            yield PublisherLock(name, connection)
        finally:
            try:
                connection.execute(select(func.pg_advisory_unlock(key)))
            except SQLAlchemyError:  # the lock went with its connection
                connection.invalidate()


@dataclass(frozen=True)
class Position:
    """What ``current`` says, with its etag; ``manifest`` is ``None`` where that generation cannot be built upon."""

    current: Current | None
    etag: str | None
    manifest: Manifest | None


def reconcile(store: ObjectStore, name: str) -> Position:
    """Read ``current`` and bring the rows in step with it. Call under the lock."""
    found = read_current(store, name)
    if found is None:
        _mark_current(name, None)
        return Position(None, None, None)
    current, etag = found
    try:
        manifest = read_manifest(store, current)
    except (ObjectMissing, JobError) as error:
        log.warning("current generation cannot be read", index=name, generation=current.generation, reason=str(error))
        return Position(current, etag, None)
    if not _known(manifest):
        log.warning("current generation belongs to another database", index=name, generation=current.generation)
        return Position(current, etag, None)
    return Position(current, etag, manifest)


def _known(manifest: Manifest) -> bool:
    with connect() as connection:
        row = connection.execute(
            select(IndexGeneration.is_current).where(
                IndexGeneration.name == manifest.name, IndexGeneration.path == manifest.path
            )
        ).first()
        if row is None:
            spec = select(ModelVersion.name + ":" + ModelVersion.tag)
            if (
                connection.scalar(spec.where(ModelVersion.model_version_id == manifest.model_version_id))
                != manifest.model
            ):
                return False
            log.warning("taking over a generation whose publisher died", index=manifest.name, generation=manifest.path)
            record(connection, manifest, sum(file.bytes for file in manifest.own_files))
    if row is None or not row.is_current:
        _mark_current(manifest.name, manifest.path)
    return True


def _mark_current(name: str, path: str | None) -> None:
    with connect() as connection:
        mark_current(connection, name, path)


def mark_current(connection: Connection, name: str, path: str | None) -> None:
    """Make the row of ``path`` the current one, and no other."""
    rows = update(IndexGeneration).where(IndexGeneration.name == name)
    connection.execute(rows.where(IndexGeneration.is_current).values(is_current=False))
    if path is not None:
        connection.execute(rows.where(IndexGeneration.path == path).values(is_current=True))


def record(connection: Connection, manifest: Manifest, bytes_uploaded: int) -> None:
    """Add the row of a published generation."""
    connection.execute(
        insert(IndexGeneration).values(
            name=manifest.name,
            path=manifest.path,
            model_version_id=manifest.model_version_id,
            state="published",
            manifest=manifest.model_dump(mode="json"),
            bytes_uploaded=bytes_uploaded,
            published_at=manifest.created_at,
        )
    )


def record_refused(connection: Connection, name: str, path: str, model_version_id: int, reason: str) -> None:
    """Add the row of a generation that the gate stopped; it has no files, only a reason."""
    connection.execute(
        insert(IndexGeneration).values(
            name=name,
            path=path,
            model_version_id=model_version_id,
            state="refused",
            manifest={"refused": reason},
            bytes_uploaded=0,
        )
    )


def newest_published(name: str) -> str | None:
    """Path of the generation published last, current or not."""
    query = (
        select(IndexGeneration.path)
        .where(IndexGeneration.name == name, IndexGeneration.state == "published")
        .order_by(IndexGeneration.generation_id.desc())
        .limit(1)
    )
    with connect() as connection:
        return connection.scalar(query)


def consume(connection: Connection, model_version_id: int, changes: Changes) -> None:
    """Delete exactly the notes that were read; one that was written anew meanwhile has another revision and stays."""
    connection.execute(text("CREATE TEMPORARY TABLE consumed (image_id int8, revision int8) ON COMMIT DROP"))
    rows = zip(changes.image_ids.tolist(), changes.revisions.tolist(), strict=True)
    copy_rows(connection, "consumed", [("image_id", "int8"), ("revision", "int8")], rows)
    # Locked in the order in which the triggers write, so that the two never wait for each other in a circle.
    connection.execute(
        text(
            "WITH seen AS (SELECT c.image_id FROM index_changes c JOIN consumed USING (image_id, revision)"
            " WHERE c.model_version_id = :model ORDER BY c.image_id FOR UPDATE OF c)"
            " DELETE FROM index_changes c USING seen WHERE c.model_version_id = :model AND c.image_id = seen.image_id"
        ),
        {"model": model_version_id},
    )


def move_current(store: ObjectStore, name: str, target: Current, expected_etag: str | None) -> None:
    """Let ``current`` point to ``target`` if nobody else moved it.

    Raises:
        TransientError: somebody did, or the store is away; readers keep a valid generation either way.
    """
    key, data = current_key(name), target.model_dump_json().encode()
    try:
        if store.honours_conditional_writes():
            store.put(key, data, if_match=expected_etag, if_none_match=expected_etag is None)
            return
        found = read_current(store, name)
        if (found[1] if found else None) == expected_etag:
            store.put(key, data)
            return
    except PreconditionFailed:
        # A repeated request is refused where the first one succeeded and only its answer was lost.
        if (found := read_current(store, name)) and found[0] == target:
            return
    raise TransientError(f"Index {name!r} was published by another process meanwhile: try again.")
