"""Model versions, and the roles that they serve."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.database.base import Base


class ModelVersion(Base):
    """An immutable folder ``models/<name>/<tag>/`` in object storage, and its card."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("name", "tag"),)

    model_version_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    tag: Mapped[str]
    card: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelRole(Base):
    """Which model version serves a role now, and which one did before (for rollback)."""

    __tablename__ = "model_roles"

    role: Mapped[str] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.model_version_id"))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.model_version_id"))
    activated_at: Mapped[datetime] = mapped_column(server_default=func.now())
