"""One engine per process, created on first use: never inherited across a fork, never held during model work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from shopvision.errors import UserError
from shopvision.settings import get_settings

_making = Lock()
# A child that is forked while another thread makes the engine would wait for it for ever.
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def get_engine() -> Engine:
    """The engine of this process; threads that ask at once get the same, or the others' connections would be lost.

    Raises:
        UserError: no database is configured, or its address cannot be read.
    """
    with _making:
        return _make_engine()


@lru_cache(maxsize=1)
def _make_engine() -> Engine:
    secret = get_settings().database_url
    if secret is None:
        raise UserError("No database: set SHOPVISION_DATABASE_URL, or start a local stack with `shopvision stack up`.")
    try:
        url = make_url(secret.get_secret_value()).set(drivername="postgresql+psycopg")
    except ArgumentError:
        raise UserError(
            "SHOPVISION_DATABASE_URL is not an address like postgresql://user:password@host/name."
        ) from None
    connect_args: dict[str, Any] = {"connect_timeout": 5, "application_name": "shopvision"}
    if get_settings().database_transaction_pooling:
        connect_args["prepare_threshold"] = None  # each transaction may get another connection of the pooler's
    engine = create_engine(url, pool_size=4, max_overflow=8, pool_pre_ping=True, connect_args=connect_args)
    event.listen(engine, "connect", _use_utc)
    return engine


def _use_utc(connection: psycopg.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # A statement, since poolers refuse it among the options of a connection; this one they keep for each client.
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def dispose_engine() -> None:
    """Close every pooled connection and forget the engine (a new process, or new settings)."""
    with _making:
        if _make_engine.cache_info().currsize:
            _make_engine().dispose()
        _make_engine.cache_clear()


@contextmanager
def connect() -> Iterator[Connection]:
    """A connection inside one transaction: committed at the end, rolled back on an error."""
    with get_engine().begin() as connection:
        yield connection


@contextmanager
def snapshot() -> Iterator[Connection]:
    """A connection that only reads and sees one moment of the database, so that what several queries say agrees."""
    with get_engine().connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def transaction() -> Iterator[Session]:
    """An ORM session inside one transaction: committed at the end, rolled back on an error."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session
