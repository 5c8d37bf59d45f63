"""What of an item's pictures each model version has a vector of, as people look at it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, select
from sqlalchemy.orm import aliased

from shopvision.catalogue.tables import ItemImage
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import Embedding
from shopvision.models.tables import ModelVersion


def chosen_regions(connection: Connection, item_id: str) -> list[dict[str, Any]]:
    """One entry for each vector of the item's pictures, by picture, model and region.

    Args:
        connection: to the database.
        item_id: of the item.

    Returns:
        ``image_id``, ``model`` (``name:tag``) and ``region``; of a garment that a composed encoder's detector found
        also ``label``, ``score`` and ``box`` (left, top, right, bottom in pixels of the upright picture), else None.
    """
    detector = aliased(ModelVersion)
    spec = detector.name + ":" + detector.tag
    rows = connection.execute(
        select(
            Embedding.image_id, (ModelVersion.name + ":" + ModelVersion.tag).label("model"), Embedding.region,
            PictureRegion.label, PictureRegion.score, PictureRegion.box,
        )
        .join(ItemImage, ItemImage.image_id == Embedding.image_id)
        .join(ModelVersion, ModelVersion.model_version_id == Embedding.model_version_id)
        .outerjoin(detector, spec == ModelVersion.card[("architecture", "arguments", "detector")].astext)
        .outerjoin(
            PictureRegion,
            and_(
                PictureRegion.detector_version_id == detector.model_version_id,
                PictureRegion.image_id == Embedding.image_id,
                PictureRegion.region == Embedding.region,
                PictureRegion.image_sha256 == Embedding.image_sha256,
                PictureRegion.label.is_not(None),
            ),
        )
        .where(ItemImage.item_id == item_id)
        .order_by(ItemImage.position, Embedding.image_id, ModelVersion.name, ModelVersion.tag, Embedding.region)
    )  # fmt: skip
    return [dict(row) for row in rows.mappings()]
