"""Click logs of promotion plans, added up by plan and product.

==================  ==========================================================================================
``plan_id``         the plan (or ``exhibit_id``)
``item_id``         the product (or ``prod_id``); empty or -1 where the plan's own name was clicked
``clicks``          how often; 1 where a log without impressions has a row for each click
``impressions``     how often the product was seen in the plan, in all rows or in none
==================  ==========================================================================================
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import create_model

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.record_parsing import record_id
from shopvision.selection.click.records import rate

PLAN_KEYS, PRODUCT_KEYS = ("plan_id", "exhibit_id"), ("item_id", "prod_id")
ClickRow = create_model("ClickRow", **dict.fromkeys(("plan_id", "item_id", "clicks", "impressions"), (str, "")))  # type: ignore[call-overload]  # a dict
"""The fields that a mapping file may name."""
OWN_NAME = "-1"
PLAN_NAME = 0  # the number of what was clicked, where it was the plan's own name
ROWS_APART = 2_000_000  # so many are kept at least before those of a pair are added up


@dataclass
class ClickLog:
    """Clicks by plan and product, both numbered in the order in which they first came.

    Attributes:
        plans: id -> number, from 0 on.
        products: id -> number, from 1 on: 0 is ``PLAN_NAME``.
        pair_plans: (n,) int64, plan of each pair, which comes once.
        pair_products: (n,) int64, its product, or ``PLAN_NAME``.
        clicks: (n,) float64.
        impressions: (n,) float64; None where the log does not count them.
        broken: rows that cannot be used, the first of them in words.
    """

    plans: dict[str, int]
    products: dict[str, int]
    pair_plans: NDArray[np.int64]
    pair_products: NDArray[np.int64]
    clicks: NDArray[np.float64]
    impressions: NDArray[np.float64] | None
    broken: tuple[int, str] = (0, "")


def read_click_log(location: str, columns: Mapping[str, str] | None = None) -> ClickLog:
    """A log (CSV, JSONL, Parquet, also ``.gz`` or on S3), read row by row.

    Args:
        location: a path, or ``s3://bucket/key``.
        columns: our column -> theirs.

    Raises:
        UserError: the file cannot be read, not one row of it can be used, or more was clicked than seen.
    """
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    gathered, broken, first = _Gathered(), 0, ""
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            reason = str(record)
            if not isinstance(record, RecordError):
                try:
                    gathered.add({renamed.get(key, key): value for key, value in record.items()} if renamed else record)
                    continue
                except ItemError as error:
                    reason = error.message
            broken, first = broken + 1, first or f"line {line}: {reason}"
    if not gathered.plans:
        why = f"{broken:,} rows are broken, {first}" if broken else "it is empty"
        raise UserError(f"{location}: not one row can be read ({why}). Write plan_id and item_id in each.")
    log = gathered.finish((broken, first))
    if log.impressions is not None and (more := np.flatnonzero(log.clicks > log.impressions)).size:
        worst = int(more[0])
        product, plan = ["its name", *log.products][log.pair_products[worst]], list(log.plans)[log.pair_plans[worst]]
        raise UserError(
            f"{location}: {product} in plan {plan} has {log.clicks[worst]:g} clicks of {log.impressions[worst]:g} "
            f"impressions, and {len(more) - 1:,} others likewise. Correct the counts."
        )
    return log


@dataclass
class _Gathered:
    """Rows as they come, added up whenever there are many."""

    plans: dict[str, int] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)
    counted: bool | None = None  # whether rows say impressions, once the first has come
    most: int = ROWS_APART
    keys: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))  # clicks and impressions in turn

    def add(self, record: Mapping[str, Any]) -> None:
        plan = record_id(record, PLAN_KEYS)
        if not plan:
            raise ItemError("broken_record", "no plan_id; every row needs one")
        values: list[Any] = [None if record.get(name) == "" else record.get(name) for name in ("clicks", "impressions")]
        clicked, seen = values
        counted = seen is not None
        if counted != (counted if self.counted is None else self.counted):
            raise ItemError("broken_record", "some rows say impressions and some do not; all need them, or none")
        if counted and clicked is None:
            raise ItemError("broken_record", "impressions without clicks; write 0 where there were none")
        clicks = 1.0 if clicked is None else rate(clicked, "clicks")
        impressions = rate(seen, "impressions") if counted else 0.0
        self.counted = counted
        product = record_id(record, PRODUCT_KEYS)
        number = PLAN_NAME if product in ("", OWN_NAME) else self.products.setdefault(product, len(self.products) + 1)
        self.keys.append(self.plans.setdefault(plan, len(self.plans)) << 32 | number)
        self.values.extend((clicks, impressions))
        if len(self.keys) >= self.most:
            self._add_up()
            self.most = max(ROWS_APART, 2 * len(self.keys))

    def _add_up(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """One row of each pair: keys ascending, and (n, 2) clicks and impressions."""
        rows = np.frombuffer(self.values, np.float64).reshape(-1, 2)
        keys, place = np.unique(np.frombuffer(self.keys, np.int64), return_inverse=True)
        sums = np.stack([np.bincount(place, column, len(keys)) for column in rows.T], axis=1).astype(np.float64)
        self.keys, self.values = array("q", keys.tobytes()), array("d", sums.tobytes())
        return keys, sums

    def finish(self, broken: tuple[int, str]) -> ClickLog:
        keys, sums = self._add_up()
        impressions = sums[:, 1] if self.counted else None
        return ClickLog(self.plans, self.products, keys >> 32, keys & 0xFFFFFFFF, sums[:, 0], impressions, broken)
