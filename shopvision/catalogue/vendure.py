"""Vendure's product CSV: padded cells, facets in one column, and variants as further rows without a name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shopvision.errors import UserError


def read_vendure(path: Path) -> Iterator[dict[str, Any]]:
    """The products of a Vendure import file as catalogue items, in the file's order.

    The slug becomes the item's id, ``assets`` its picture files, ``category`` facets its path, ``brand`` its brand and
    the other facets its attributes. The price is the first variant's; all variants are kept in ``variants``.

    Raises:
        UserError: the file lacks the columns of such a file.
    """
    product: dict[str, Any] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        absent = {"name", "slug", "assets", "facets", "sku", "price"} - set(header)
        if absent:
            raise UserError(f"{path}: no product file of Vendure, the columns {', '.join(sorted(absent))} are missing.")
        for cells in rows:
            row = dict(zip(header, map(str.strip, cells), strict=False))
            if row.get("name"):
                if product:
                    yield product
                product = _product(row)
            if product and row.get("sku"):
                product["variants"].append(_variant(product, row))
                product.setdefault("price", row["price"])
    if product:
        yield product


def _product(row: dict[str, str]) -> dict[str, Any]:
    facets = [
        (key.strip(), value.strip()) for key, _, value in (facet.partition(":") for facet in _split(row["facets"]))
    ]
    return {
        "item_id": row["slug"],
        "title": row["name"],
        "description": row.get("description", ""),
        "brand": next((value for key, value in facets if key == "brand"), None),
        "category": [value for key, value in facets if key == "category"],
        "attributes": [{"key": key, "value": value} for key, value in facets if key not in {"brand", "category"}],
        "images": [{"file": file} for file in _split(row["assets"])],
        "option_groups": _split(row.get("optionGroups", "")),
        "variants": [],
    }


def _variant(product: dict[str, Any], row: dict[str, str]) -> dict[str, Any]:
    options = dict(zip(product["option_groups"], _split(row.get("optionValues", "")), strict=False))
    return {"sku": row["sku"], "price": row["price"], "options": options}


def _split(cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|") if part.strip()]
