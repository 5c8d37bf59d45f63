"""Alembic environment: one migrator at a time, one transaction per migration, with short lock waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from alembic import context
from sqlalchemy import Connection, event

from shopvision.database import get_engine
from shopvision.database.named_lock import try_lock
from worker.schema import declared_tables

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5


@contextmanager
def turn() -> Iterator[None]:
    """Wait until no other process migrates this database, and say so."""
    with get_engine().connect() as connection:
        told = False
        while not try_lock(connection, "shopvision.migrations"):
            if not told:
                log.warning("migration_waits", reason="another process is migrating this database")
                told = True
            time.sleep(LOOK_SECONDS)
        yield


def wait_briefly_for_locks(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL lock_timeout = '4s'")


def run() -> None:
    with turn(), get_engine().connect() as connection:
        event.listen(connection, "begin", wait_briefly_for_locks)
        context.configure(connection=connection, target_metadata=declared_tables(), transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
