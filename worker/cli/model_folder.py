"""Models by name or by folder, as commands take them."""

from __future__ import annotations

from pathlib import Path

from shopvision.errors import UserError


def model_folder(model: str) -> Path:
    """The folder of ``NAME:TAG``, or the one that is named itself.

    Raises:
        UserError: there is neither.
    """
    from shopvision import models

    if Path(model).is_dir():
        return Path(model)
    if "/" in model:
        raise UserError(f"{model} is no folder: name the folder of a model version, or NAME:TAG.")
    return models.local_copy(models.find(model))
