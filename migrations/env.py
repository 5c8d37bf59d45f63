"""Alembic environment: one transaction per migration, under an advisory lock, with short lock waits."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from shopvision.database import get_engine
from worker.schema import declared_tables


def run() -> None:
    with get_engine().connect() as connection:
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.execute(text("SELECT pg_advisory_lock(hashtext('shopvision.migrations'))"))
        connection.commit()
        context.configure(connection=connection, target_metadata=declared_tables(), transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(hashtext('shopvision.migrations'))"))
        connection.commit()


run()
