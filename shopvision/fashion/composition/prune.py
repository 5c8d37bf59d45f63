"""Regions that detectors found which nothing needs any more."""

from __future__ import annotations

from sqlalchemy import select

from shopvision.database import connect
from shopvision.fashion.kinds import COMPOSED_KIND, KIND
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import IndexGeneration
from shopvision.models.superseded import delete_old_rows, superseded_versions
from shopvision.models.tables import ModelVersion

BATCH_ROWS = 10_000


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``; needed is what serves, or what serves was composed of."""
    region = PictureRegion
    deleted = sum(
        delete_old_rows(version, region.image_id, region.found_at, at_once=BATCH_ROWS, owner=region.detector_version_id)
        for version in _superseded_detectors()
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
