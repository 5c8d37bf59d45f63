"""The migrations build exactly the tables that the code declares."""

from __future__ import annotations

import threading

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from shopvision.database import connect, explain, get_engine
from shopvision.database.named_lock import try_lock
from shopvision.errors import UserError
from worker.logs import log_warnings_to_stderr
from worker.schema import configuration, declared_tables, migrate, require_current_schema

pytestmark = pytest.mark.usefixtures("database")


def test_migrations_match_the_declared_tables() -> None:
    with get_engine().connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), declared_tables()) == []
        stored = connection.scalar(text("SELECT reloptions FROM pg_class WHERE oid = 'items'::regclass"))
    fillfactor = declared_tables().tables["items"].dialect_kwargs["postgresql_with"]["fillfactor"]
    assert stored == [f"fillfactor={fillfactor}"]  # which the comparison above does not see


def test_an_old_schema_is_named_with_its_mend() -> None:
    require_current_schema()
    with connect() as connection:
        current = connection.scalar(text("SELECT version_num FROM alembic_version"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    try:
        with pytest.raises(UserError, match="run `shopvision migrate`"):
            require_current_schema()
    finally:
        with connect() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :current"), {"current": current})


def test_going_back_from_plan_rankings_and_forth_again() -> None:
    """Back at the first schema every vector is noted for the index again."""
    noted = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'note\\_%' ORDER BY proname"
    with connect() as connection:
        now = connection.scalars(text(noted)).all()
    try:
        command.downgrade(configuration(), "0001")
        with connect() as connection:
            before = connection.scalars(text(noted)).all()
            assert connection.scalar(text("SELECT to_regclass('plan_rankings')")) is None
    finally:
        migrate()
    assert len(before) == 3
    assert not any("image_encoder" in definition for definition in before)
    assert all("image_encoder" in definition for definition in now)
    with connect() as connection:
        assert connection.scalars(text(noted)).all() == now


def test_a_second_migrator_waits_for_its_turn(capsys: pytest.CaptureFixture[str]) -> None:
    log_warnings_to_stderr()
    done: list[bool] = []
    second = threading.Thread(target=lambda: (migrate(), done.append(True)))
    with connect() as first:
        assert try_lock(first, "shopvision.migrations")
        second.start()
        second.join(1)
        assert second.is_alive()
    second.join(10)
    assert done == [True]
    assert "another process is migrating this database" in capsys.readouterr().err


def test_a_migration_waits_only_briefly_for_a_table() -> None:
    try:
        with connect() as reader:
            reader.execute(text("SELECT * FROM plan_rankings"))
            with pytest.raises(OperationalError) as refused:
                command.downgrade(configuration(), "0001")
        assert "try again" in explain(refused.value)
    finally:
        migrate()
