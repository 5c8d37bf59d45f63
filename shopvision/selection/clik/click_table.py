"""An exhibition table made of plans and a click log: what ``train clik`` and ``data describe`` read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from shopvision.errors import UserError
from shopvision.reports.row_writer import replacing
from shopvision.selection.clik.click_labels import LabelledRows, Per, label_by_clicks
from shopvision.selection.clik.click_log import ClickLog
from shopvision.selection.clik.exhibition_filters import keep_available, keep_available_share
from shopvision.selection.clik.exhibition_table import EXHIBITION_SLOTS, PRODUCT_SLOTS
from shopvision.selection.clik.exhibitions import RankingData, RuleRecord

SUFFIX = ".parquet"  # a CSV would have to guard texts and ids against spreadsheets
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class CollectRules:
    """Which plans are worth collecting, and which labels are worth keeping; defaults are the published values.

    Attributes:
        min_available: members for sale with a picture that a plan needs.
        min_share: share of its members that these are at least.
        min_impressions: a product that was seen less often has no label.
        per: a label for each plan and product, or for each product.
    """

    min_available: int = 50
    min_share: float = 0.5
    min_impressions: float = 1
    per: Per = "plan"


def require_suffix(path: Path) -> None:
    """Before the log is read.

    Raises:
        UserError: the file is named otherwise.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: name it {SUFFIX}, which keeps ids and texts as they are.")


def write_click_table(path: Path, data: RankingData, log: ClickLog, rules: CollectRules) -> dict[str, Any]:
    """Write the rows of the plans that are worth it, with ``clicks``, ``impressions`` and ``ctr``.

    Args:
        path: of a Parquet file.
        data: plans with their products; its labels do not matter.
        log: of these and maybe other plans.
        rules: which plans and labels are kept.

    Returns:
        Plain values for JSON: ``plans``, ``rows``, ``labelled`` (rows with a label), ``clicks`` and
        ``clicks_elsewhere`` (that went to no row), ``broken_rows`` of the log and the first of them, ``rules`` (a
        record for each).

    Raises:
        UserError: no plan is left, no label is above 0, or the file cannot be written.
    """
    require_suffix(path)
    records = list(data.read_log)

    def note(rule: str, before: RankingData, after: RankingData) -> RankingData:
        records.append(RuleRecord(rule, len(before.exhibitions), len(after.exhibitions), before.rows, after.rows))
        if not after.exhibitions:
            raise UserError(
                f"No plan is left: '{rule}' dropped the last ({len(before.exhibitions):,} came so far). Lower "
                "--min-available or --min-share, or check that log and plans have the same ids."
            )
        return after

    data = note("members available", data, keep_available(data, rules.min_available))
    data = note("share of members available", data, keep_available_share(data, rules.min_share))
    known = [one for one in data.exhibitions if one.exhibition_id in log.plans]
    data = note("plans in the log", data, data.with_exhibitions(known))
    rows = label_by_clicks(data, log, per=rules.per, min_impressions=rules.min_impressions)
    if not (rows.rates.ctr > 0).any():
        raise UserError(
            "No product of these plans was clicked, so there is nothing to learn: check that log and plans have the "
            "same ids, and --min-impressions."
        )
    _write(path, data, rows)
    return {
        "output": str(path),
        "plans": len(data.exhibitions),
        "rows": data.rows,
        "labelled": int(np.isfinite(rows.rates.ctr).sum()),
        "clicks": float(log.clicks.sum()),
        "clicks_elsewhere": rows.elsewhere,
        "broken_rows": log.broken[0],
        "first_broken_row": log.broken[1],
        "rules": [record.as_dict() for record in records],
    }


def _write(path: Path, data: RankingData, rows: LabelledRows) -> None:
    texts = {"exhibit_id": [one.exhibition_id for one in data.exhibitions]}
    texts |= {name: [getattr(one.topic, slot) for one in data.exhibitions] for slot, name in EXHIBITION_SLOTS.items()}
    plans = pa.record_batch({name: pa.array(values, pa.string()) for name, values in texts.items()})
    names = {"id": "prod_id", "image": "image", **PRODUCT_SLOTS}
    products = {names[ours]: column.array for ours, column in data.products.columns.items()}
    values = rows.rates._asdict()
    schema = pa.schema(
        [*((name, pa.string()) for name in (*texts, *products)), *((name, pa.float64()) for name in values)]
    )
    with replacing(path) as part, parquet.ParquetWriter(part, schema) as writer:
        for start in range(0, len(rows.products), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            columns = plans.take(pa.array(rows.exhibitions[some])).columns
            columns += [column.take(pa.array(rows.products[some])).cast(pa.string()) for column in products.values()]
            columns += [pa.array(column[some], from_pandas=True) for column in values.values()]  # NaN is no value
            writer.write_batch(pa.record_batch(columns, schema=schema))
