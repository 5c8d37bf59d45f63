"""The registry: immutable model versions in object storage, their rows in Postgres, the roles that point to them."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, ModelCard, split_spec
from shopvision.models.importers import fetch
from shopvision.models.kinds import all_roles, find_kind
from shopvision.models.tables import ModelRole, ModelVersion
from shopvision.models.version_folder import naming_full_disk, wrong_file
from shopvision.settings import get_settings
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, open_store

DEFAULT_ENCODER = "wheel:efficientnet-lite0"


@dataclass(frozen=True)
class ModelVersionRef:
    """One model version as the registry knows it."""

    model_version_id: int
    name: str
    tag: str
    card: ModelCard

    @property
    def spec(self) -> str:
        """``name:tag``."""
        return f"{self.name}:{self.tag}"

    @property
    def prefix(self) -> str:
        """Folder of its files in object storage."""
        return f"models/{self.name}/{self.tag}"


@dataclass(frozen=True)
class RoleState:
    """What serves a role now, and what a rollback would bring back; both ``name:tag``."""

    active: str
    previous: str | None


def _versions() -> Select[int, str, str, dict[str, Any]]:
    return select(ModelVersion.model_version_id, ModelVersion.name, ModelVersion.tag, ModelVersion.card)


def _ref(row: Row[int, str, str, dict[str, Any]]) -> ModelVersionRef:
    identity, name, tag, card = row
    return ModelVersionRef(identity, name, tag, ModelCard.model_validate(card))


def require_role(role: str) -> str:
    """The role itself. Raises ``UserError`` where no kind of model can serve it."""
    if role not in all_roles():
        raise UserError(f"Role '{role}' is unknown: use one of {', '.join(all_roles())}.")
    return role


def import_model(
    source: str, *, name: str | None = None, tag: str | None = None, options: Mapping[str, str] | None = None
) -> ModelVersionRef:
    """Bring a model into object storage and the registry. The same content again changes nothing.

    Args:
        source: see ``shopvision.models.importers.fetch``.
        name: folder name; by default the source's own.
        tag: by default made from the content.
        options: see ``fetch``.

    Raises:
        UserError: see ``fetch``; or ``name:tag`` exists with other content.
    """
    cache = get_settings().cache_dir
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="import-", dir=cache) as temporary:
        folder = Path(temporary, "model")
        return _publish(fetch(source, folder, options).renamed(name, tag), folder)


def _publish(card: ModelCard, folder: Path) -> ModelVersionRef:
    content = card.model_dump(mode="json")
    same_name = _versions().where(ModelVersion.name == card.name, ModelVersion.tag == card.tag)
    with connect() as connection:
        # Held while files travel: a second import of this name and tag waits, and then finds what the first one wrote.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"model version {card.spec}", 0))))
        row = connection.execute(same_name).one_or_none()
        if row and row.card != content:
            raise _taken(card)
        _upload(card, folder)
        connection.execute(
            insert(ModelVersion).values(name=card.name, tag=card.tag, card=content).on_conflict_do_nothing()
        )
        return _ref(connection.execute(same_name).one())


def _taken(card: ModelCard) -> UserError:
    return UserError(f"{card.spec} exists with other content, and a version never changes: choose another --tag.")


def _upload(card: ModelCard, folder: Path) -> None:
    """Write what object storage does not hold yet.

    The card goes first and claims the name, also against other databases that share the store; what an import that
    broke off left out is made up for by the same import again.
    """
    store, prefix = open_store(), f"models/{card.name}/{card.tag}"
    key = f"{prefix}/{CARD_FILE}"
    try:
        claimed = store.get(key)
    except ObjectMissing:
        try:
            store.put(key, card.to_bytes(), if_none_match=store.honours_conditional_writes())
            claimed = card.to_bytes()
        except PreconditionFailed:
            claimed = store.get(key)
    if claimed != card.to_bytes():
        raise _taken(card)
    for file in card.files:
        try:
            found = store.stat(f"{prefix}/{file}").size
        except ObjectMissing:
            found = -1
        if found != (folder / file).stat().st_size:
            store.put(f"{prefix}/{file}", folder / file)


def list_versions() -> list[ModelVersionRef]:
    """Every model version, by name and age."""
    with connect() as connection:
        return [
            _ref(row)
            for row in connection.execute(_versions().order_by(ModelVersion.name, ModelVersion.model_version_id))
        ]


def find(spec: str) -> ModelVersionRef:
    """The model version ``name:tag``.

    Raises:
        UserError: there is none.
    """
    name, tag = split_spec(spec)
    with connect() as connection:
        row = connection.execute(_versions().where(ModelVersion.name == name, ModelVersion.tag == tag)).one_or_none()
    if row is None:
        raise UserError(f"There is no model version {spec}: `shopvision models list` shows what there is.")
    return _ref(row)


def roles() -> dict[str, RoleState]:
    """The state of every role that is filled."""
    with connect() as connection:
        specs = {row.model_version_id: f"{row.name}:{row.tag}" for row in connection.execute(_versions())}
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
            _versions()
            .join(ModelRole, ModelRole.model_version_id == ModelVersion.model_version_id)
            .where(ModelRole.role == require_role(role))
        ).one_or_none()
    return None if row is None else _ref(row)


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


def local_copy(ref: ModelVersionRef, store: ObjectStore | None = None) -> Path:
    """A folder on this machine with the files of ``ref``, each verified against the card. Safe for processes at once.

    Raises:
        JobError: a file is missing or damaged in object storage, or the disk is full.
        TransientError: object storage is away for the moment.
    """
    target = get_settings().cache_dir / "models" / ref.name / ref.tag
    if wrong_file(target, ref.card) is None:
        return target
    store = store or open_store()
    with naming_full_disk(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{ref.tag}-", dir=target.parent) as temporary:
            folder = Path(temporary, "new")
            folder.mkdir()
            _download(ref, store, folder)
            _move_into_place(folder, target, ref.card, Path(temporary, "damaged"))
    return target


def _download(ref: ModelVersionRef, store: ObjectStore, folder: Path) -> None:
    for file in ref.card.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(f"{ref.prefix}/{file}", folder / file)
        except ObjectMissing:
            raise JobError(
                f"{store.url}/{ref.prefix}/{file} is missing: import {ref.spec} again from {ref.card.source}."
            ) from None
    (folder / CARD_FILE).write_bytes(ref.card.to_bytes())
    if wrong := wrong_file(folder, ref.card):
        raise JobError(
            f"{store.url}/{ref.prefix}/{wrong} is damaged (sha256 differs from the card): restore the object."
        )


def _move_into_place(folder: Path, target: Path, card: ModelCard, aside: Path) -> None:
    """Rename ``folder`` to ``target``. Another process may have been faster; what is damaged is moved ``aside``."""
    for _ in range(3):
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            if wrong_file(target, card) is None:
                return
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        else:
            return
    raise JobError(f"{target} cannot be replaced: remove the folder.")
