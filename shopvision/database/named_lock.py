"""A lock by name that one transaction holds.

Of a transaction and not of a session: behind a pooler in transaction mode a session is anybody's.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text


def try_lock(connection: Connection, name: str) -> bool:
    """Take the lock until the transaction ends; False where another one has it. Does not wait."""
    taken = connection.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0))))
    hold(connection)
    return bool(taken)


def hold(connection: Connection) -> None:
    """Keep the transaction open without holding anything back; raises ``DBAPIError`` where it is gone.

    A query would leave its snapshot behind, which keeps vacuum from its work and concurrent index builds waiting.
    """
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def take_lock(connection: Connection, name: str) -> None:
    """Take the lock until the transaction ends, waiting for it: for a short transaction that others come before."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
