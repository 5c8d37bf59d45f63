"""The folder of a model version: written whole or not at all, and read with every doubt removed.

It holds ``card.json``, which names all other files with their sha256, mostly ``model.safetensors``, and whatever else
the model needs, such as a tokenizer or whole model versions that it is made of.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard, require_folder_names
from shopvision.models.weights import load_strictly, read_tensors, save_tensors
from shopvision.storage import sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

FileWriter = Callable[[Path], object]
"""Writes files of a model version into the folder it is given."""
Arguments = TypeVar("Arguments", bound=BaseModel)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def weights_file(tensors: Mapping[str, Tensor]) -> FileWriter:
    """Writes ``model.safetensors``."""
    return lambda folder: save_tensors(tensors, folder / WEIGHTS_FILE)


def member_folder(source: Path, place: str) -> FileWriter:
    """Writes a copy of the model version in ``source`` into the sub-folder ``place``."""
    return lambda folder: copy_version(source, folder / place)


def write_version(
    folder: Path, files: Sequence[FileWriter], *, name: str, tag: str | None = None, **fields: Any
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing; a model version that stands there is replaced once the new one is complete.
        files: each writes some of the files.
        name: of the model.
        tag: by default made from the content.
        fields: further fields of ``ModelCard``.

    Returns:
        The card, with the sha256 of every file.

    Raises:
        UserError: ``folder`` holds something else or cannot be made, or name or tag cannot be the name of a folder.
        JobError: the disk is full.
    """
    require_folder_names(name=name, tag=tag)
    _require_replaceable(folder)
    with naming_full_disk(folder.parent), _folder_beside(folder) as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        for write in files:
            write(new)
        digests = {file: sha256_of(new / file) for file in files_of(new)}
        card = ModelCard(name=name, tag=tag or "content", files=digests, **fields)
        card = card if tag else card.model_copy(update={"tag": card.content_tag()})
        (new / CARD_FILE).write_bytes(card.to_bytes())
        for file in (CARD_FILE, *digests):
            _sync(new / file)
        former = Path(temporary, "former")
        if folder.exists():
            folder.rename(former)
        try:
            new.rename(folder)
        except OSError:
            if former.exists():  # else it would go with the temporary folder
                former.rename(folder)
            raise
    return card


def read_card(folder: Path, kind: str | None = None) -> ModelCard:
    """The card of a model version, of one kind where that is given.

    Raises:
        UserError: no card, or one of another kind.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {CARD_FILE}: name the folder of a model version.")
    card = ModelCard.from_bytes(path.read_bytes(), str(path))
    if kind is not None and card.kind != kind:
        raise UserError(f"{card.spec} is of the kind {card.kind} ({card.architecture.name}), not {kind}.")
    return card


def read_arguments(folder: Path, card: ModelCard, model: type[Arguments]) -> Arguments:
    """``architecture.arguments`` of the card, as what the model is built from.

    Raises:
        UserError: a field is missing, unknown or wrong; the message names it.
    """
    try:
        return model.model_validate(card.architecture.arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("architecture", "arguments", *first["loc"])))
        # Mostly of a model that was made when there was such a field.
        mend = " This version of shopvision has no such field: train or import the model anew."
        unknown = first["type"] == "extra_forbidden"
        raise UserError(f"{folder / CARD_FILE}: {place}: {first['msg']}.{mend if unknown else ''}") from None


def load_weights(network: nn.Module, folder: Path, card: ModelCard) -> None:
    """Fill ``network`` with the tensors of ``model.safetensors``.

    Raises:
        JobError: the file cannot be read, or a tensor does not fit; see ``load_strictly``.
    """
    load_strictly(network, read_tensors(folder / WEIGHTS_FILE), f"{card.spec}, {WEIGHTS_FILE}")


def files_of(folder: Path) -> list[str]:
    """What a card must list: everything in the folder and below it, but the card itself."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in names if name != CARD_FILE]


def wrong_file(folder: Path, card: ModelCard) -> str | None:
    """The first file that is missing or not the card's; None where all are right."""
    for name, digest in card.files.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            return name
    return None if (folder / CARD_FILE).is_file() else CARD_FILE


def copy_version(source: Path, target: Path) -> ModelCard:
    """Copy a model version, every file checked, into a folder that is empty or not there.

    Raises:
        UserError: no card, or other files than those of the card.
    """
    card = read_card(source)
    target.mkdir(parents=True, exist_ok=True)
    found = files_of(source)
    for name in sorted(set(found) ^ set(card.files)):
        state = "not listed in the card" if name in found else "missing"
        raise UserError(f"{source / name} is {state}: the folder must hold exactly the files of its card.")
    for name, digest in card.files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        if sha256_of(target / name) != digest:
            raise UserError(
                f"{source / name} is not the file of the card (sha256 differs): write the card anew, or copy again."
            )
    shutil.copyfile(source / CARD_FILE, target / CARD_FILE)
    return card


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into a ``JobError`` that names ``folder``."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
    except SafetensorError as error:  # it tells the error of the system in words
        if not any(f"os error {number}" in str(error) for number in _FULL):
            raise
    else:
        return
    raise JobError(f"The disk of {folder} is full: free space, or set SHOPVISION_HOME to another disk.")


def _folder_beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder.") from None


def _require_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the model version.")
    if folder.is_mount():
        raise UserError(f"{folder} is the root of a file system: name a folder inside it.")
    if not any(folder.iterdir()):
        return
    known = read_card(folder).files if (folder / CARD_FILE).is_file() else {}
    for name in files_of(folder):
        if name not in known:
            raise UserError(f"{folder / name} is no part of a model version: choose another folder, or move it away.")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
