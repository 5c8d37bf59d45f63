"""The catalogue over the broker: small sets of items and plans, sendable by name from any service.

.. code-block:: python

    item = {"item_id": "1", "images": ["s3://shop/1.jpg"]}
    producer.send_task("tasks.upsert_items", kwargs={"records": [item]}, queue="io")

A call is carried out wholly or not at all: one wrong record fails the task with one line that names it. A message that
arrives twice changes nothing the second time. Larger sets belong into a file, see ``shopvision catalogue import``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shopvision.errors import UserError
from worker.app import app

if TYPE_CHECKING:
    from celery.app.task import Task

MAX_RECORDS = 1_000
RETRIES = 8


@app.task(name="tasks.upsert_items", bind=True, max_retries=RETRIES, throws=(UserError,))
def upsert_items(task: Task[..., None], /, records: list[dict[str, Any]]) -> None:
    """Insert or update items, at most 1,000; pictures by full ``uri``."""
    _carry_out(task, "upsert_items", records)


@app.task(name="tasks.upsert_plans", bind=True, max_retries=RETRIES, throws=(UserError,))
def upsert_plans(task: Task[..., None], /, records: list[dict[str, Any]]) -> None:
    """Insert or update promotion plans, at most 1,000."""
    _carry_out(task, "upsert_plans", records)


@app.task(name="tasks.delete_items", bind=True, max_retries=RETRIES, throws=(UserError,))
def delete_items(task: Task[..., None], /, item_ids: list[str]) -> None:
    """Delete items with their pictures, at most 1,000; unknown ids are ignored."""
    _carry_out(task, "delete_items", item_ids)


@app.task(name="tasks.delete_plans", bind=True, max_retries=RETRIES, throws=(UserError,))
def delete_plans(task: Task[..., None], /, plan_ids: list[str]) -> None:
    """Delete plans, at most 1,000; unknown ids are ignored."""
    _carry_out(task, "delete_plans", plan_ids)


def _carry_out(task: Task[..., None], operation: str, records: Sequence[Any]) -> None:
    """Call ``shopvision.catalogue.<operation>``; a database that is away is waited for, a wrong record is not."""
    import structlog

    from shopvision import catalogue
    from shopvision.database import connect, explain, is_passing

    log = structlog.get_logger(__name__)
    try:
        _require_few(records)
        with connect() as connection:
            outcome = getattr(catalogue, operation)(connection, records)
    except UserError as error:
        log.warning("catalogue_call_refused", operation=operation, error=str(error))
        raise
    except Exception as error:
        if not is_passing(error):
            raise
        log.warning("catalogue_call_postponed", operation=operation, error=explain(error))
        raise task.retry(exc=error, countdown=2**task.request.retries) from error
    log.info("catalogue_changed", operation=operation, outcome=str(outcome))


def _require_few(records: Sequence[Any]) -> None:
    if not isinstance(records, list):
        raise UserError("Give a list. Nothing was written.")
    if len(records) > MAX_RECORDS:
        raise UserError(
            f"{len(records):,} entries in one call, at most {MAX_RECORDS:,}: send several. Nothing was written."
        )
