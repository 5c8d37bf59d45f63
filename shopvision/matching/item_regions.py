"""Regions of items' leading pictures, as the detector that looked last found them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, text

from shopvision.items.item import Box, Item

MOST = 8

_REGIONS = text("""
    SELECT image.item_id, region.box, whole.box AS whole
    FROM item_images AS image
    JOIN LATERAL (
        SELECT detector_version_id, box FROM picture_regions AS looked_at
        WHERE looked_at.image_id = image.image_id AND region = 0 ORDER BY found_at DESC LIMIT 1
    ) AS whole ON true
    JOIN picture_regions AS region
        ON region.detector_version_id = whole.detector_version_id AND region.image_id = image.image_id
        AND region.region BETWEEN 1 AND :most
    WHERE image.position = 0 AND image.item_id = ANY (:ids)
    ORDER BY image.item_id, region.region
    """)


def with_regions(connection: Connection, items: Mapping[str, Item]) -> dict[str, Item]:
    """The items, those with regions in ``picture_regions`` with the strongest of them."""
    found: dict[str, list[Box]] = defaultdict(list)
    for row in connection.execute(_REGIONS, {"ids": list(items), "most": MOST}):
        width, height = row.whole[2] - row.whole[0], row.whole[3] - row.whole[1]
        left, top, right, bottom = row.box
        found[row.item_id].append((left / width, top / height, right / width, bottom / height))
    return {
        item_id: replace(item, regions=tuple(found[item_id])) if item_id in found else item
        for item_id, item in items.items()
    }
