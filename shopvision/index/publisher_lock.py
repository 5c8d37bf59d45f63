"""One publisher at a time: whoever may move ``current`` of an index holds an advisory lock in Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from shopvision.database import get_engine
from shopvision.database.named_lock import hold
from shopvision.errors import TransientError

LOCK_WAIT_SECONDS = 30.0


class PublisherLock:
    """Held by whoever may move ``current`` of one index; lost with its database connection."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    def require_held(self) -> None:
        """Raise ``TransientError`` where the connection broke, and with it the lock went to somebody else."""
        try:
            hold(self._connection)
        except DBAPIError:
            raise TransientError(f"The database connection broke while publishing index {self._name!r}.") from None


@contextmanager
def publisher_lock(name: str) -> Iterator[PublisherLock]:
    """Be the only one who publishes, rolls back or collects the index ``name``.

    Raises:
        TransientError: another process does so and did not finish in time.
    """
    key = func.hashtextextended(f"shopvision.index.{name}", 0)
    with get_engine().connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS:g}s'")
        try:
            connection.execute(select(func.pg_advisory_xact_lock(key)))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise TransientError(f"Index {name!r} is being published by another process: try again later.") from None
        hold(connection)
        try:
            yield PublisherLock(name, connection)
        finally:
            try:
                connection.rollback()
            except SQLAlchemyError:  # the lock went with its connection
                connection.invalidate()
