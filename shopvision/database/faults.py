"""What an error of the database means for whoever asked: wait, tell an operator, or look at the request.

The drivers call very different things ``OperationalError``: a server that restarts, a full disk, an id too long for an
index, 70,000 bound parameters. The SQLSTATE tells them apart.
"""

from __future__ import annotations

from enum import Enum

import psycopg
from sqlalchemy.exc import DBAPIError

MAX_REASON_LENGTH = 500


class Fault(Enum):
    """Whose trouble it is."""

    PASSING = "passing"  # away, restarting, busy, chosen as a deadlock's victim: the same may succeed later
    SERVER = "server"  # full disk, old schema, no rights, cancelled: until somebody mends it; no item is to blame
    REQUEST = "request"  # this very request: its values, its size


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_CLASSES = {"08"}  # connection exception
_PASSING = {
    "25006",  # read-only: a standby answered while the primary moves
    "40001", "40003", "40P01",  # serialization failure, completion unknown, deadlock
    "53300",  # too many connections
    "55006", "55P03",  # object in use, lock not available
    "57P01", "57P02", "57P03", "57P05",  # shutdown, crash, cannot connect now, idle session ended
}  # fmt: skip
_REQUEST_CLASSES = {
    "21", "22", "23", "44",  # cardinality, data, constraint, check option
    "54",  # program limit: a value too long for an index, too many columns
    "P0",  # raised by a trigger
}  # fmt: skip
_SCHEMA = {"3F000", "42703", "42883", "42P01"}  # schema, column, function, table that is not there
_POOLER = (
    "The database's address leads to a pooler in transaction mode ({reason}): "
    "set SHOPVISION_DATABASE_TRANSACTION_POOLING=true."
)
_MENDS = {
    "53100": "The database's disk is full ({reason}): free space there, then try again.",
    "26000": _POOLER,  # a prepared statement that is not there
    "42P05": _POOLER,  # or there already: they are a connection's own
    **dict.fromkeys(
        _SCHEMA, "The database schema is not the one this code needs ({reason}): run `shopvision migrate`."
    ),
}


def fault_of(error: BaseException) -> Fault | None:
    """Whose trouble ``error`` is; None where it is no error of the database."""
    cause = _cause(error)
    if cause is None:
        return None
    state = cause.sqlstate
    if state is None:
        return _fault_without_state(error, cause)
    if state in _PASSING or state[:2] in _PASSING_CLASSES:
        return Fault.PASSING
    return Fault.REQUEST if state[:2] in _REQUEST_CLASSES else Fault.SERVER


def is_passing(error: BaseException) -> bool:
    """True where the database is away or busy for the moment, so that the same may be tried again."""
    return fault_of(error) is Fault.PASSING


def explain(error: BaseException) -> str:
    """One line for a person: what the database says, and the mend where there is a usual one."""
    cause = _cause(error)
    if cause is None:
        return f"{type(error).__name__}: {error}"
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:MAX_REASON_LENGTH]
    if cause.sqlstate in _MENDS:
        return _MENDS[cause.sqlstate].format(reason=reason)
    if fault_of(error) is not Fault.PASSING:
        return f"The database refuses ({reason})."
    if cause.sqlstate is None:
        return (
            f"The database does not answer ({reason}). "
            "Check SHOPVISION_DATABASE_URL, or start a local stack with `shopvision stack up`."
        )
    return f"The database is busy or restarting ({reason}): try again."


def _cause(error: BaseException) -> psycopg.Error | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def _fault_without_state(error: BaseException, cause: psycopg.Error) -> Fault:
    """The server said nothing: the connection broke or never was, or the driver refuses the request by itself."""
    if not isinstance(cause, psycopg.OperationalError):
        return Fault.REQUEST
    refused_by_driver = (
        isinstance(error, DBAPIError) and error.statement is not None and not error.connection_invalidated
    )
    return Fault.REQUEST if refused_by_driver else Fault.PASSING
