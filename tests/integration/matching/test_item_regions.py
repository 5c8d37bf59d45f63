"""Regions of items' pictures, as the detector that looked last found them."""

from __future__ import annotations

import pytest
from sqlalchemy import func, insert, text

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.fashion.tables import PictureRegion
from shopvision.matching import store
from shopvision.models.tables import ModelVersion


@pytest.mark.usefixtures("database")
def test_a_models_items_have_the_regions_of_the_detector_that_looked_last() -> None:
    with connect() as connection:
        for item_id in "abc":
            connection.execute(insert(ItemRow).values(item_id=item_id, content_hash=b""))
        images = [
            connection.scalars(
                insert(ItemImage).values(item_id=item_id, position=position, uri=f"https://cdn.example/{item_id}.jpg")
                .returning(ItemImage.image_id)
            ).one()
            for item_id, position in (("a", 0), ("b", 0), ("c", 1))
        ]  # fmt: skip
        old, new = connection.scalars(
            insert(ModelVersion).returning(ModelVersion.model_version_id, sort_by_parameter_order=True),
            [{"name": "d", "tag": tag, "card": {"kind": "detector"}} for tag in ("old", "new")],
        ).all()
        long_ago = text("now() - interval '1 day'")
        for version, image, region, box, at in (
            (old, images[0], 0, [0, 0, 200, 100], long_ago),
            (old, images[0], 1, [0, 0, 20, 10], long_ago),
            (new, images[0], 0, [0, 0, 200, 100], func.now()),
            (new, images[0], 2, [100, 50, 200, 100], func.now()),
            (new, images[0], 1, [50, 10, 150, 90], func.now()),
            (old, images[1], 0, [0, 0, 10, 10], long_ago),  # nothing was found
            (old, images[2], 0, [0, 0, 10, 10], long_ago),  # of a picture that does not lead
            (old, images[2], 1, [0, 0, 5, 5], long_ago),
        ):
            found = {"label": "skirt", "score": 0.9} if region else {}
            connection.execute(
                insert(PictureRegion).values(
                    detector_version_id=version, image_id=image, region=region, image_sha256=b"", box=box, found_at=at,
                    **found,
                )
            )  # fmt: skip
    items = store.read_items("abc").items
    assert items["a"].regions == (
        pytest.approx((0.25, 0.1, 0.75, 0.9)), pytest.approx((0.5, 0.5, 1.0, 1.0)),
    )  # fmt: skip
    assert items["b"].regions == items["c"].regions == ()
