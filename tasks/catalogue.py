"""The catalogue over the broker: small sets of items and plans, sendable by name from any service.

.. code-block:: python

    item = {"item_id": "1", "images": ["s3://shop/1.jpg"]}
    producer.send_task("tasks.upsert_items", kwargs={"records": [item]}, queue="io")

A call is carried out wholly or not at all: one wrong record fails the task with one line that names it. A message that
arrives twice changes nothing the second time. Larger sets belong into a file, see ``shopvision catalogue import``.
"""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy.exc
from structlog import get_logger

from shopvision import catalogue
from shopvision.catalogue import Counts
from shopvision.database import connect
from shopvision.errors import UserError
from worker.app import app

MAX_RECORDS = 1_000

log = get_logger()

# Deadlocks and a database that is away pass; a wrong record does not.
OPTIONS: dict[str, Any] = {
    "autoretry_for": (psycopg.OperationalError, sqlalchemy.exc.OperationalError),
    "retry_backoff": True,
    "max_retries": 8,
    "throws": (UserError,),
}


@app.task(name="tasks.upsert_items", **OPTIONS)
def upsert_items(records: list[dict[str, Any]]) -> None:
    """Insert or update items, at most 1,000; pictures by full ``uri``."""
    with connect() as connection:
        _log("items upserted", catalogue.upsert_items(connection, _small(records)))


@app.task(name="tasks.upsert_plans", **OPTIONS)
def upsert_plans(records: list[dict[str, Any]]) -> None:
    """Insert or update promotion plans, at most 1,000."""
    with connect() as connection:
        _log("plans upserted", catalogue.upsert_plans(connection, _small(records)))


@app.task(name="tasks.delete_items", **OPTIONS)
def delete_items(item_ids: list[str]) -> None:
    """Delete items with their pictures, at most 1,000; unknown ids are ignored."""
    with connect() as connection:
        log.info("items deleted", deleted=catalogue.delete_items(connection, _small(item_ids)))


@app.task(name="tasks.delete_plans", **OPTIONS)
def delete_plans(plan_ids: list[str]) -> None:
    """Delete promotion plans, at most 1,000; unknown ids are ignored."""
    with connect() as connection:
        log.info("plans deleted", deleted=catalogue.delete_plans(connection, _small(plan_ids)))


def _small(entries: list[Any]) -> list[Any]:
    if not isinstance(entries, list):
        raise UserError("Give a list. Nothing was written.")
    if len(entries) > MAX_RECORDS:
        raise UserError(
            f"{len(entries):,} entries in one call, at most {MAX_RECORDS:,}: send several. Nothing was written."
        )
    return entries


def _log(event: str, counts: Counts) -> None:
    log.info(event, inserted=counts.inserted, updated=counts.updated, unchanged=counts.unchanged)
