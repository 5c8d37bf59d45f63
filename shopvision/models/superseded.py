"""Model versions that nothing needs any more, and what they left in the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from shopvision.database import connect
from shopvision.database.batches import delete_in_batches
from shopvision.models.tables import ModelRole, ModelVersion
from shopvision.settings import get_settings


def superseded_versions() -> list[int]:
    """Ids of the versions that serve no role and are no role's way back."""
    serves = select(ModelRole.role).where(
        or_(
            ModelRole.model_version_id == ModelVersion.model_version_id,
            ModelRole.previous_version_id == ModelVersion.model_version_id,
        )
    )
    with connect() as connection:
        return list(connection.scalars(select(ModelVersion.model_version_id).where(~serves.exists())))


def delete_old_rows(
    version: int,
    key: InstrumentedAttribute[Any],
    written_at: InstrumentedAttribute[datetime],
    *,
    at_once: int,
    owner: InstrumentedAttribute[int] | None = None,
) -> int:
    """Delete what one version wrote more than ``keep_superseded_days`` ago, the oldest first; returns how much it was.

    Args:
        version: its id.
        key: with the version the table's key.
        written_at: when a row was written.
        at_once: rows in one transaction.
        owner: where the id stands; by default in the table's ``model_version_id``.
    """
    table = key.class_
    is_own = (table.model_version_id if owner is None else owner) == version
    long_ago = func.now() - timedelta(days=get_settings().keep_superseded_days)
    old = select(key).where(is_own, written_at < long_ago).order_by(written_at).limit(at_once)
    return delete_in_batches(delete(table).where(is_own, key.in_(old)))
