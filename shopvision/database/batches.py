"""Deleting much in short transactions, so that the work is never held up."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Delete

from shopvision.database.engine import connect


def delete_in_batches(batch: Delete | Callable[[Connection], int]) -> int:
    """Run a bounded delete, each time in a transaction of its own, until it finds nothing; returns the rows deleted.

    Args:
        batch: a statement, or what runs one and returns how many rows it deleted.
    """
    total = 0
    while True:
        with connect() as connection:
            rows = connection.execute(batch).rowcount if isinstance(batch, Delete) else batch(connection)
        if rows == 0:
            return total
        total += rows
