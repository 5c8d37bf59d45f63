"""Items from the shop's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Text, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.catalogue.tables import ItemImage
from shopvision.items.item import Item
from shopvision.items.record_parsing import item_from_record

IDS_A_QUERY = 10_000

_ITEMS = (
    select(
        ItemRow.item_id,
        ItemRow.title,
        ItemRow.category,
        ItemRow.brand,
        ItemRow.price,
        ItemRow.currency,
        ItemRow.description,
        ItemRow.attributes,
        ItemRow.sku_attributes,
        ItemRow.source,
        ItemImage.uri,
    )
    .outerjoin(ItemImage, (ItemImage.item_id == ItemRow.item_id) & (ItemImage.position == 0))
    .where(ItemRow.item_id == any_(bindparam("ids", type_=ARRAY(Text))))
)


def items_from_catalogue(connection: Connection, item_ids: Sequence[str]) -> dict[str, Item]:
    """Items by id, in the order asked for, as a file of them would give; those not in the catalogue are missing."""
    wanted = list(dict.fromkeys(item_ids))
    found: dict[str, Item] = {}
    for start in range(0, len(wanted), IDS_A_QUERY):
        ids = wanted[start : start + IDS_A_QUERY]
        rows = {row.item_id: row for row in connection.execute(_ITEMS, {"ids": ids})}
        found |= {item_id: _item(rows[item_id]) for item_id in ids if item_id in rows}
    return found


def _item(row: Any) -> Item:
    record = {"title": row.title, "category": row.category, "brand": row.brand, "description": row.description}
    record |= {"price": None if row.price is None else f"{row.price:f}", "currency": row.currency, "image": row.uri}
    record |= {"attributes": row.attributes, "sku_attributes": row.sku_attributes, "source": row.source}
    return item_from_record(record, row.item_id)
