"""Items that failed, written in the transaction of whatever found it out."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, func
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.input_checks import storable
from worker.kinds import ItemFailed
from worker.ledger.tables import ItemFailure


def record_failures(connection: Connection, job_id: uuid.UUID, failures: list[ItemFailed]) -> None:
    """Write a job's item failures; one that is known already is replaced."""
    if not failures:
        return
    statement = upsert(ItemFailure)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "item_key"],
            set_={"code": statement.excluded.code, "message": statement.excluded.message, "failed_at": func.now()},
        ),
        [
            {
                "job_id": job_id,
                "item_key": failure.key,
                "code": failure.code,
                "message": storable(failure.message),
            }
            for failure in failures
        ],
    )
