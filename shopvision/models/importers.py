"""Bringing a model from outside into a version folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shopvision.errors import UserError
from shopvision.models.card import CARD_FILE, ModelCard
from shopvision.models.kinds import all_schemes, find_kind
from shopvision.models.version_folder import copy_version

LOCAL_FOLDER = "local-dir"


def fetch(source: str, folder: Path, options: Mapping[str, str] | None = None) -> ModelCard:
    """Bring the model version of ``source`` into the empty ``folder``.

    Args:
        source: ``PREFIX:REST`` of one of the import schemes that kinds register; ``shopvision models sources`` lists
            them. ``local-dir:DIR`` also takes a whole model version of any kind.
        folder: gets the files.
        options: what the scheme is told beside.

    Raises:
        UserError: unknown source or option, unreachable hub, or weights that do not fit the architecture.
        JobError: a checkpoint, or a folder with a card, whose weights do not fit.
    """
    prefix, _, rest = source.partition(":")
    if prefix == LOCAL_FOLDER and (Path(rest).expanduser() / CARD_FILE).is_file():
        return _fetch_version(Path(rest).expanduser().resolve(), folder, options or {})
    schemes = all_schemes()
    if prefix not in schemes or not rest:
        known = ", ".join(str(scheme) for scheme in schemes.values())
        raise UserError(f"Source '{source}' is unknown: use one of {known}.")
    scheme = schemes[prefix]
    for name in options or {}:
        if name not in scheme.options:
            taken = f"takes the options {', '.join(scheme.options)}" if scheme.options else "takes no options"
            raise UserError(f"{scheme} has no option '{name}': it {taken}.")
    return scheme.fetch(rest, folder, **(options or {}))


def _fetch_version(source: Path, folder: Path, options: Mapping[str, str]) -> ModelCard:
    if options:
        raise UserError(f"{source} holds a whole model version, which takes no option '{next(iter(options))}'.")
    card = copy_version(source, folder)
    find_kind(card.kind).validate(folder)
    return card
