"""Roles: which model version serves what, and which one did before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.models.kinds import all_roles, find_kind
from shopvision.models.registry import ModelVersionRef, find, import_model, reference_of, select_versions
from shopvision.models.tables import ModelRole, ModelVersion

DEFAULT_ENCODER = "wheel:efficientnet-lite0"


@dataclass(frozen=True)
class RoleState:
    """What serves a role now, and what a rollback would bring back; both ``name:tag``."""

    active: str
    previous: str | None


def require_role(role: str) -> str:
    """The role itself. Raises ``UserError`` where no kind of model can serve it."""
    if role not in all_roles():
        raise UserError(f"Role '{role}' is unknown: use one of {', '.join(all_roles())}.")
    return role


def roles() -> dict[str, RoleState]:
    """The state of every role that is filled."""
    with connect() as connection:
        specs = {row.model_version_id: f"{row.name}:{row.tag}" for row in connection.execute(select_versions())}
        filled = connection.execute(
            select(ModelRole.role, ModelRole.model_version_id, ModelRole.previous_version_id).order_by(ModelRole.role)
        )
        return {role: RoleState(specs[now], specs.get(before)) for role, now, before in filled}


def activate(role: str, spec: str, *, force: bool = False) -> ModelVersionRef:
    """Let ``name:tag`` serve ``role`` from now on; the one before is kept for ``rollback``.

    Args:
        role: what it will serve as.
        spec: the model version.
        force: activate it although its own metrics show no skill.

    Raises:
        UserError: unknown role or version, a model that cannot serve the role, or one whose metrics show no skill.
    """
    require_role(role)
    ref = find(spec)
    _require_kind(ref, role)
    kind = find_kind(ref.card.kind)
    kind.require_fit(ref.card, role)
    doubt = kind.doubt(ref.card, role)
    if doubt is not None and not force:
        raise UserError(
            f"{spec} {doubt}: look at what it was trained on, or insist with `shopvision models activate {role} {spec} "
            "--force`."
        )
    statement = insert(ModelRole).values(role=role, model_version_id=ref.model_version_id)
    with connect() as connection:
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[ModelRole.role],
                set_={
                    "model_version_id": ref.model_version_id,
                    "previous_version_id": ModelRole.model_version_id,
                    "activated_at": func.now(),
                },
                where=ModelRole.model_version_id != ref.model_version_id,
            )
        )
    return ref


def rollback(role: str) -> ModelVersionRef:
    """Swap the active and the previous version of ``role``; returns the one that is active now.

    Raises:
        UserError: unknown role, or nothing to go back to.
    """
    with connect() as connection:
        changed = connection.execute(
            update(ModelRole)
            .where(ModelRole.role == require_role(role), ModelRole.previous_version_id.is_not(None))
            .values(
                model_version_id=ModelRole.previous_version_id,
                previous_version_id=ModelRole.model_version_id,
                activated_at=func.now(),
            )
        )
    if changed.rowcount == 0:
        raise UserError(f"Role {role} has no previous version to go back to.")
    return active(role)


def active(role: str) -> ModelVersionRef:
    """The model version that serves ``role``.

    Raises:
        JobError: the role is empty.
    """
    found = _active(role)
    if found is None:
        raise JobError(f"No model serves the role {role}: `shopvision models activate {role} NAME:TAG` sets one.")
    return found


def resolve(spec: str | None, role: str) -> ModelVersionRef:
    """The model version called ``spec`` (``name:tag``), or the one active for ``role``; of a kind that can serve it.

    Raises:
        UserError: there is no such version, or it is of another kind.
        JobError: no model serves the role.
    """
    ref = find(spec) if spec else active(role)
    _require_kind(ref, role)
    return ref


def _require_kind(ref: ModelVersionRef, role: str) -> None:
    kinds = all_roles()[role]
    if ref.card.kind not in kinds:
        raise UserError(
            f"{ref.spec} is of the kind {ref.card.kind}, not {' or '.join(kinds)}, as a {role} is: `shopvision models "
            "list` shows what there is."
        )


def serves(role: str) -> str | None:
    """``name:tag`` of the model version that serves ``role``, if any does."""
    state = roles().get(role)
    return None if state is None else state.active


def _active(role: str) -> ModelVersionRef | None:
    with connect() as connection:
        row = connection.execute(
            select_versions()
            .join(ModelRole, ModelRole.model_version_id == ModelVersion.model_version_id)
            .where(ModelRole.role == require_role(role))
        ).one_or_none()
    return None if row is None else reference_of(row)


def ensure_default_encoder() -> ModelVersionRef:
    """The active catalogue encoder; where there is none, the one that needs no model hub is imported and activated."""
    role = "catalogue_encoder"
    if found := _active(role):
        return found
    ref = import_model(DEFAULT_ENCODER)
    with connect() as connection:
        # Somebody may have chosen another model meanwhile: theirs stays.
        connection.execute(
            insert(ModelRole).values(role=role, model_version_id=ref.model_version_id).on_conflict_do_nothing()
        )
    return active(role)
