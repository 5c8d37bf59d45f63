"""The registry: immutable model versions in object storage, and their rows in Postgres."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.dialects.postgresql import insert

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, ModelCard, split_spec
from shopvision.models.importers import fetch
from shopvision.models.tables import ModelVersion
from shopvision.models.version_folder import naming_full_disk, wrong_file
from shopvision.settings import get_settings
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, open_store


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


def select_versions() -> Select[int, str, str, dict[str, Any]]:
    """The rows of all model versions, for ``reference_of``."""
    return select(ModelVersion.model_version_id, ModelVersion.name, ModelVersion.tag, ModelVersion.card)


def reference_of(row: Row[int, str, str, dict[str, Any]]) -> ModelVersionRef:
    """The model version of a row of ``select_versions``."""
    identity, name, tag, card = row
    return ModelVersionRef(identity, name, tag, ModelCard.model_validate(card))


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
    same_name = select_versions().where(ModelVersion.name == card.name, ModelVersion.tag == card.tag)
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
        return reference_of(connection.execute(same_name).one())


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
            reference_of(row)
            for row in connection.execute(select_versions().order_by(ModelVersion.name, ModelVersion.model_version_id))
        ]


def find(spec: str) -> ModelVersionRef:
    """The model version ``name:tag``.

    Raises:
        UserError: there is none.
    """
    name, tag = split_spec(spec)
    with connect() as connection:
        row = connection.execute(
            select_versions().where(ModelVersion.name == name, ModelVersion.tag == tag)
        ).one_or_none()
    if row is None:
        raise UserError(f"There is no model version {spec}: `shopvision models list` shows what there is.")
    return reference_of(row)


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
