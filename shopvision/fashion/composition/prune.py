"""Regions that detectors found which nothing needs any more."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select

from shopvision.database import connect
from shopvision.database.batches import delete_in_batches
from shopvision.fashion.kinds import COMPOSED_KIND, KIND
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import IndexGeneration
from shopvision.models.superseded import superseded_versions
from shopvision.models.tables import ModelVersion
from shopvision.settings import get_settings

BATCH_ROWS = 10_000


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``; needed is what serves, or what serves was composed of."""
    deleted = 0
    long_ago = func.now() - timedelta(days=get_settings().keep_superseded_days)
    for version in _superseded_detectors():
        old = (
            select(PictureRegion.image_id)
            .where(PictureRegion.detector_version_id == version, PictureRegion.found_at < long_ago)
            .order_by(PictureRegion.found_at)
            .limit(BATCH_ROWS)
        )
        deleted += delete_in_batches(
            delete(PictureRegion).where(PictureRegion.detector_version_id == version, PictureRegion.image_id.in_(old))
        )
    return {"picture_regions": deleted}


def _superseded_detectors() -> list[int]:
    """Ids of the detectors that serve no role, neither alone nor within a composed encoder that serves one."""
    with connect() as connection:
        versions = connection.execute(
            select(ModelVersion.model_version_id, ModelVersion.name, ModelVersion.tag, ModelVersion.card)
        ).all()
        indexed = connection.scalars(select(IndexGeneration.model_version_id).where(IndexGeneration.is_current)).all()
    superseded = set(superseded_versions()) - set(indexed)
    needed = {
        card["architecture"]["arguments"]["detector"]
        for version, _, _, card in versions
        if card["kind"] == COMPOSED_KIND and version not in superseded
    }
    return [
        version
        for version, name, tag, card in versions
        if card["kind"] == KIND and version in superseded and f"{name}:{tag}" not in needed
    ]
