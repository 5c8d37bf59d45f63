"""Which model versions nothing needs any more."""

from __future__ import annotations

from sqlalchemy import or_, select

from shopvision.database import connect
from shopvision.models.tables import ModelRole, ModelVersion


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
