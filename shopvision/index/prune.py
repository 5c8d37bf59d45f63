"""Vectors, and notes of changed ones, of model versions that serve nothing."""

from __future__ import annotations

from sqlalchemy import delete, select

from shopvision.database import connect
from shopvision.database.batches import delete_in_batches
from shopvision.index.tables import Embedding, IndexChange, IndexGeneration
from shopvision.models.superseded import delete_old_rows, superseded_versions

BATCH_ROWS = 10_000


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``; a version that backs a current index keeps everything."""
    with connect() as connection:
        current = set(
            connection.scalars(select(IndexGeneration.model_version_id).where(IndexGeneration.is_current)).all()
        )
    deleted = 0
    for version in superseded_versions():
        if version in current:
            continue
        deleted += delete_old_rows(version, Embedding.image_id, Embedding.embedded_at, at_once=BATCH_ROWS)
        still_there = select(Embedding.image_id).where(
            Embedding.model_version_id == version, Embedding.image_id == IndexChange.image_id
        )
        orphans = (
            select(IndexChange.image_id)
            .where(IndexChange.model_version_id == version, ~still_there.exists())
            .limit(BATCH_ROWS)
        )
        delete_in_batches(
            delete(IndexChange).where(IndexChange.model_version_id == version, IndexChange.image_id.in_(orphans))
        )
    return {"embeddings": deleted}
