"""Models by name or by folder, as commands take them."""

from __future__ import annotations

from pathlib import Path

from shopvision.errors import UserError


def model_folder(model: str) -> Path:
    """The folder of ``NAME:TAG``, of what serves a role, or the one that is named itself.

    Raises:
        UserError: there is none of them.
        JobError: no model serves the role.
    """
    from shopvision import models
    from shopvision.models.kinds import all_roles

    if Path(model).is_dir():
        return Path(model)
    if "/" in model:
        raise UserError(f"{model} is no folder: name the folder of a model version, or NAME:TAG.")
    return models.local_copy(models.active(model) if model in all_roles() else models.find(model))
