"""The catalogue for backend services: small sets of records in the caller's own transaction, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from shopvision.catalogue.known_ids import could_be_id
from shopvision.catalogue.record_texts import RecordError, normalised
from shopvision.catalogue.row_conversion import ItemRow, PlanRow, item_row, plan_row
from shopvision.catalogue.row_upserts import ITEMS, PLANS, Counts, delete_rows, write_rows
from shopvision.errors import UserError


def upsert_items(connection: Connection, records: Sequence[dict[str, Any]]) -> Counts:
    """Insert or update items as :mod:`shopvision.catalogue.record_schema` describes them; pictures by full ``uri``.

    Other callers that write items wait until the transaction ends, so commit soon.

    Raises:
        UserError: a record is wrong or an id occurs twice; nothing was written.
    """
    return write_rows(connection, ITEMS, _rows(records, item_row))


def upsert_plans(connection: Connection, records: Sequence[dict[str, Any]]) -> Counts:
    """Insert or update promotion plans and their members.

    Raises:
        UserError: a record is wrong or an id occurs twice; nothing was written.
    """
    return write_rows(connection, PLANS, _rows(records, plan_row))


def delete_items(connection: Connection, item_ids: Sequence[str]) -> int:
    """Delete items with their pictures and embeddings; unknown ids are ignored. Returns how many there were."""
    return delete_rows(connection, ITEMS, _ids(item_ids))


def delete_plans(connection: Connection, plan_ids: Sequence[str]) -> int:
    """Delete plans with their members; unknown ids are ignored. Returns how many there were."""
    return delete_rows(connection, PLANS, _ids(plan_ids))


def _rows(
    records: Sequence[dict[str, Any]], to_row: Callable[[dict[str, Any]], ItemRow | PlanRow]
) -> list[ItemRow | PlanRow]:
    rows: dict[str, ItemRow | PlanRow] = {}
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"Record {position} is no object: give a list of objects. Nothing was written.")
        try:
            row = to_row(normalised(record))
        except RecordError as error:
            raise UserError(f"Record {position}: {error}. Nothing was written.") from None
        if rows.setdefault(row[0], row) is not row:
            raise UserError(f"Record {position}: id {row[0]!r} occurs twice, give it once. Nothing was written.")
    return list(rows.values())


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
        raise UserError("Ids must be a list of texts. Nothing was deleted.")
    wrong = next((one for one in ids if not could_be_id(one)), None)
    if wrong is not None:
        raise UserError(f"Id {wrong[:80]!r} can be none of the catalogue's: correct it. Nothing was deleted.")
    return list(ids)
