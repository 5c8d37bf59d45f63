"""Bring the database schema to the version this code needs, or say that it is not there yet."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData

from shopvision.database import get_engine
from shopvision.database.base import Base
from shopvision.errors import UserError

ROOMS_WITH_TABLES = (
    "shopvision.catalogue", "shopvision.models", "shopvision.index", "shopvision.fashion", "shopvision.fashion.posts",
    "shopvision.selection", "shopvision.selection.click", "shopvision.selection.item_pictures", "shopvision.matching",
    "worker.ledger",
)  # fmt: skip


def declared_tables() -> MetaData:
    """Every table that any room declares."""
    for room in ROOMS_WITH_TABLES:
        import_module(f"{room}.tables")
    return Base.metadata


def configuration() -> Config:
    """What Alembic needs to find the migrations."""
    import migrations

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return configuration


def migrate() -> None:
    """Apply every migration that is missing. Safe to call from several processes at once."""
    command.upgrade(configuration(), "head")


def require_current_schema() -> None:
    """Raise ``UserError`` where the database's schema is not the one this code was written for."""
    wanted = ScriptDirectory.from_config(configuration()).get_current_head()
    with get_engine().connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != wanted:
        raise UserError(
            f"The database schema is at {found or 'nothing'}, this code needs {wanted}: run `shopvision migrate`."
        )
