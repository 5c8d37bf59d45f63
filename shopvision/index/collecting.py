"""Deleting the files of generations that nobody needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import select, update

from shopvision.database import among, connect
from shopvision.errors import JobError, UserError
from shopvision.index import generation_rows
from shopvision.index.changes import forget_idle_notes
from shopvision.index.manifest import generations_prefix, manifest_key
from shopvision.index.publisher_lock import publisher_lock
from shopvision.index.tables import IndexGeneration
from shopvision.settings import get_settings
from shopvision.storage import ObjectStore, open_store

log = structlog.get_logger(__name__)

# A reader that began to download a generation just before it was superseded is done with it long before this.
GRACE = timedelta(hours=1)


@dataclass(frozen=True)
class CollectReport:
    """What ``collect_garbage`` removed: generations that can no longer be rolled back to, and objects."""

    generations: list[str]
    objects: int
    bytes: int


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
    with publisher_lock(name):
        position = generation_rows.reconcile(store, name)
        if position.current is not None and position.manifest is None:
            raise JobError(f"The current generation of index {name!r} cannot be read: publish again before collecting.")
        protected = {position.current.generation, position.current.previous} if position.current else set()
        collected = _mark_collected(name, keep, protected, datetime.now(UTC) - grace)
        kept = generation_rows.published_manifests(name)
        needed = {file.key for manifest in kept.values() for file in manifest.files} | {manifest_key(p) for p in kept}
        finished = generation_rows.paths_in(name, "collected", "refused")
        oldest = datetime.now(UTC) - grace
        doomed = [
            found
            for found in store.list(generations_prefix(name))
            if found.key not in needed and (_folder(found.key) in finished or found.modified < oldest)
        ]
        try:
            store.delete(found.key for found in doomed)
        except UserError as error:  # rights that allow no deletes are a choice, and no reason to stop working
            log.warning("old generations stay in the store", index=name, objects=len(doomed), reason=str(error))
            doomed = []
        forget_idle_notes()
    return CollectReport(collected, len(doomed), sum(found.size for found in doomed))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


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
