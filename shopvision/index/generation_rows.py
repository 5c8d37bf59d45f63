"""The rows of ``index_generations``, and keeping them in step with ``current``.

``current`` is what readers see, so it is the truth; the rows follow it. A publisher that dies between moving
``current`` and writing its row leaves a generation that is complete and served: the next one under the lock takes it
into the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection, insert, select, update

from shopvision.database import connect, transaction
from shopvision.errors import JobError
from shopvision.index.current import read_current, read_manifest
from shopvision.index.manifest import Current, Manifest
from shopvision.index.tables import IndexGeneration
from shopvision.models.tables import ModelVersion
from shopvision.storage import ObjectMissing, ObjectStore

log = structlog.get_logger(__name__)


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


def current_path(name: str) -> str | None:
    """Path of the generation that the rows call current."""
    query = select(IndexGeneration.path).where(IndexGeneration.name == name, IndexGeneration.is_current)
    with connect() as connection:
        return connection.scalar(query)


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


def published_manifests(name: str) -> dict[str, Manifest]:
    """Path -> manifest of every generation that is kept."""
    query = select(IndexGeneration.path, IndexGeneration.manifest).where(
        IndexGeneration.name == name, IndexGeneration.state == "published"
    )
    with connect() as connection:
        return {path: Manifest.model_validate(document) for path, document in connection.execute(query)}


def paths_in(name: str, *states: str) -> set[str]:
    """Paths of the generations in one of ``states``."""
    query = select(IndexGeneration.path).where(IndexGeneration.name == name, IndexGeneration.state.in_(states))
    with connect() as connection:
        return set(connection.scalars(query))
