"""One publisher at a time: whoever may move ``current`` of an index holds an advisory lock in Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Executable, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from shopvision.database import get_engine
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
            self._connection.execute(text("SELECT 1"))
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
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_WAIT_SECONDS:g}s'")
        try:
            connection.execute(select(func.pg_advisory_lock(key)))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise TransientError(f"Index {name!r} is being published by another process: try again later.") from None
        finally:
            _quietly(connection, text("RESET lock_timeout"))
        try:
            yield PublisherLock(name, connection)
        finally:
            _quietly(connection, select(func.pg_advisory_unlock(key)))


def _quietly(connection: Connection, statement: Executable) -> None:
    try:
        connection.execute(statement)
    except SQLAlchemyError:  # the lock, and the setting, went with their connection
        connection.invalidate()
