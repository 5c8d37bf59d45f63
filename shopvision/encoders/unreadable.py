"""What to say of a pretrained model that its library cannot load: which of its files is damaged, if one is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from shopvision.errors import UserError

_PICKLE, _ZIP = b"\x80", b"PK"  # how files of PyTorch begin: those of before 2020, and later ones


def cannot_load(source: str, error: Exception, place: Path | str, revision: str | None, mend: str) -> UserError:
    """The error to raise.

    Args:
        source: as the user named it.
        error: what the library raised.
        place: the model's folder, or its repository on the hub.
        revision: of a repository.
        mend: what to do where no file is damaged.
    """
    folder = place if isinstance(place, Path) else _downloaded(place, revision)
    damaged = None if folder is None else damaged_file(folder)
    if damaged is not None:
        again = "copy it anew" if isinstance(place, Path) else "remove it, so that it is downloaded anew"
        return UserError(f"{source}: {damaged} is cut, empty or not of the format that its name says: {again}.")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:2])[:300].rstrip(".")
    return UserError(f"{source} cannot be loaded ({type(error).__name__}: {reason}). {mend}")


def damaged_file(folder: Path) -> Path | None:
    """The first file of weights or settings in ``folder`` that cannot be opened as what its name says."""
    return next((path for path in sorted(folder.iterdir()) if path.is_file() and not _opens(path)), None)


def _opens(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy"):
                return True
        if path.suffix == ".json":
            json.loads(path.read_bytes())
    except (OSError, SafetensorError, ValueError):
        return False
    if path.suffix in {".bin", ".pt", ".pth"}:
        with path.open("rb") as file:
            begin = file.read(2)
        return begin[:1] == _PICKLE or (begin == _ZIP and zipfile.is_zipfile(path))
    return True


def _downloaded(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
