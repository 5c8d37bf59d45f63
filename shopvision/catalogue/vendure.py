"""Vendure's product CSV: padded cells, facets in one column, and variants as further rows without a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import columns_of_csv, open_source
from shopvision.errors import UserError

COLUMNS = {"name", "slug", "assets", "facets", "sku", "price"}


def read_vendure(path: Path) -> Iterator[dict[str, Any]]:
    """The products of a Vendure import file as catalogue items, in the file's order.

    The slug becomes the item's id, ``assets`` its picture files, ``category`` facets its path, ``brand`` its brand and
    the other facets its attributes. The price is the first variant's; all variants are kept in ``variants``.

    Raises:
        UserError: the file lacks the columns of such a file, or a row cannot be read.
    """
    absent = COLUMNS - set(columns_of_csv(path)[0])
    if absent:
        raise UserError(f"{path}: no product file of Vendure, the columns {', '.join(sorted(absent))} are missing.")
    product: dict[str, Any] = {}
    with open_source(str(path), "csv") as source:
        for line, record in source.records:
            if isinstance(record, RecordError):
                raise UserError(f"{path}: line {line}: {record}.")
            row = {name: cell.strip() for name, cell in record.items()}
            if "name" in row:
                if product:
                    yield product
                product = _product(row)
            if product and "sku" in row:
                product["variants"].append(_variant(product, row))
                product.setdefault("price", row.get("price"))
    if product:
        yield product


def _product(row: dict[str, str]) -> dict[str, Any]:
    facets = [
        (key.strip(), value.strip())
        for key, _, value in (facet.partition(":") for facet in _split(row.get("facets", "")))
    ]
    return {
        "item_id": row.get("slug"),
        "title": row["name"],
        "description": row.get("description", ""),
        "brand": next((value for key, value in facets if key == "brand"), None),
        "category": [value for key, value in facets if key == "category"],
        "attributes": [{"key": key, "value": value} for key, value in facets if key not in {"brand", "category"}],
        "images": [{"file": file} for file in _split(row.get("assets", ""))],
        "option_groups": _split(row.get("optionGroups", "")),
        "variants": [],
    }


def _variant(product: dict[str, Any], row: dict[str, str]) -> dict[str, Any]:
    options = dict(zip(product["option_groups"], _split(row.get("optionValues", "")), strict=False))
    return {"sku": row["sku"], "price": row.get("price"), "options": options}


def _split(cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|") if part.strip()]
