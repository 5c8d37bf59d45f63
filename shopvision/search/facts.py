"""What is shown of pictures that an index found, and what their order needs: one query for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    SmallInteger,
    bindparam,
    column,
    false,
    func,
    literal,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import Embedding
from shopvision.items.text_normalisation import attribute_key
from shopvision.models.card import split_spec
from shopvision.models.tables import ModelVersion
from shopvision.search.filters import ItemFilter

PictureKey = tuple[int, int]
"""(image_id, region)"""
FIELDS = {"item_id": Item.item_id, "title": Item.title, "brand": Item.brand, "category": Item.category}


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """A picture of an item that is in the catalogue now.

    Attributes:
        style: what variants share; None where the item has none, or nobody asked.
        fits: the filter.
        sha256: of the picture's bytes; None where it has no vector of this model any more.
        vector: float32, shape (d,), of unit length; empty likewise.
        colour: CIELAB; None where it is not known.
    """

    item_id: str
    title: str | None
    brand: str | None
    category: str | None
    price: Decimal | None
    currency: str | None
    uri: str
    style: str | None
    fits: bool
    sha256: bytes | None
    vector: NDArray[np.float32]
    colour: tuple[float, float, float] | None


def read_facts(
    connection: Connection,
    pictures: Collection[PictureKey],
    *,
    model: str,
    detector: str | None,
    collapse: str | None,
    one: ItemFilter,
) -> dict[PictureKey, PictureFacts]:
    """The facts of some pictures; those that left the catalogue are missing.

    Args:
        connection: to Postgres.
        pictures: (image_id, region) of each.
        model: ``name:tag`` that their vectors are of.
        detector: ``name:tag`` that found the regions; None where there is none.
        collapse: key of the item's record that variants share.
        one: the filter.
    """
    asked = (
        func.unnest(
            bindparam("ids", [image_id for image_id, _ in pictures], ARRAY(BigInteger)),
            bindparam("regions", [region for _, region in pictures], ARRAY(SmallInteger)),
        )
        .table_valued(column("image_id", BigInteger), column("region", SmallInteger), name="asked")
        .render_derived()
    )
    colour: Any = null()
    source = (
        asked.join(ItemImage, ItemImage.image_id == asked.c.image_id)
        .join(Item, Item.item_id == ItemImage.item_id)
        .outerjoin(
            Embedding,
            (Embedding.model_version_id == _version(model))
            & (Embedding.image_id == asked.c.image_id)
            & (Embedding.region == asked.c.region),
        )
    )
    if detector is not None:
        colour = PictureRegion.colour
        source = source.outerjoin(
            PictureRegion,
            (PictureRegion.detector_version_id == _version(detector))
            & (PictureRegion.image_id == asked.c.image_id)
            & (PictureRegion.region == asked.c.region)
            # Another encoder with this detector may have looked at newer bytes, where this number is another part.
            & (PictureRegion.image_sha256 == Embedding.image_sha256),
        )
    rows = connection.execute(
        select(
            asked.c.image_id, asked.c.region, Item.item_id, Item.title, Item.brand, Item.category, Item.price,
            Item.currency, ItemImage.uri, Embedding.image_sha256, Embedding.vector, colour.label("colour"),
            func.coalesce(one.condition(), false()).label("fits"), *_style_columns(collapse),
        ).select_from(source)
    )  # fmt: skip
    return {(row.image_id, row.region): _facts(row, collapse) for row in rows}


def _version(spec: str) -> ScalarSelect[int]:
    name, tag = split_spec(spec)
    return (
        select(ModelVersion.model_version_id)
        .where(ModelVersion.name == name, ModelVersion.tag == tag)
        .scalar_subquery()
    )


def _style_columns(collapse: str | None) -> tuple[ColumnElement[Any], ...]:
    """A field of the item, or what stands under this key in ``extra``, with the attributes to look through else."""
    if collapse is None:
        return (null().label("style"), literal(None).label("attributes"))
    if collapse in FIELDS:
        return (FIELDS[collapse].label("style"), null().label("attributes"))
    return (
        Item.extra[collapse].astext.label("style"),
        Item.attributes.op("||")(Item.sku_attributes).label("attributes"),
    )


def _facts(row: Row[Any], collapse: str | None) -> PictureFacts:
    style = row.style or (_attribute(row.attributes or (), collapse) if collapse is not None else None)
    vector = np.frombuffer(row.vector or b"", "<f2").astype(np.float32)
    return PictureFacts(
        row.item_id, row.title, row.brand, row.category, row.price, row.currency, row.uri, style or None, row.fits,
        row.image_sha256, vector, None if row.colour is None else tuple(row.colour),
    )  # fmt: skip


def _attribute(attributes: Iterable[Mapping[str, Any]], key: str) -> str | None:
    """The attribute's values, where several stand there all of them."""
    wanted = attribute_key(key)
    return "|".join(sorted({str(one["value"]) for one in attributes if attribute_key(str(one["key"])) == wanted}))
