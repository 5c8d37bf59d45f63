"""Whether what serves is whole, and what Postgres holds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from shopvision.database import snapshot
from shopvision.errors import JobError, UserError
from shopvision.index.changes import read_changes
from shopvision.index.current import read_current, read_manifest
from shopvision.index.manifest import Manifest
from shopvision.index.source import count_vectors
from shopvision.index.tables import IndexGeneration
from shopvision.storage import ObjectMissing, ObjectStore, open_store, sha256_of


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found; the index is sound where ``problems`` is empty.

    Attributes:
        live, in_postgres: numbers of vectors.
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
    problems = damaged_files(store, manifest)
    with snapshot() as connection:
        in_postgres = count_vectors(connection, manifest.model_version_id)
        pending = len(read_changes(connection, manifest.model_version_id).image_ids)
        path = connection.scalar(
            select(IndexGeneration.path).where(IndexGeneration.name == name, IndexGeneration.is_current)
        )
    if path != manifest.path:
        problems.append(f"current is {manifest.path}, the database says {path}: the next publication mends it.")
    if pending == 0 and in_postgres != manifest.counts.live:
        problems.append(f"the index holds {manifest.counts.live} vectors, Postgres {in_postgres}: compact the index.")
    return VerifyReport(
        path=manifest.path, model=manifest.model, files=len(manifest.files) + 1,
        bytes=sum(file.bytes for file in manifest.files), live=manifest.counts.live, in_postgres=in_postgres,
        pending=pending, problems=problems,
    )  # fmt: skip


def damaged_files(store: ObjectStore, manifest: Manifest) -> list[str]:
    """One line for each file of a generation that is missing or damaged; every file is downloaded."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "file"
        for file in manifest.files:
            try:
                store.download(file.key, local)
            except ObjectMissing:
                problems.append(f"{file.key} is missing: compact the index.")
                continue
            if sha256_of(local) != file.sha256:
                problems.append(f"{file.key} is damaged: compact the index.")
    return problems
