"""Where a model of transformers lies: a local folder or a repository on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shopvision.errors import UserError


@dataclass(frozen=True)
class ModelPlace:
    """A folder or a repository.

    Attributes:
        place: the folder, or ``ORG/NAME``.
        revision: of the repository.
        said: the source as it is told to others.
        name: for the model version.
    """

    place: str
    revision: str | None
    said: str
    name: str

    @property
    def is_folder(self) -> bool:
        """Whether it lies on this machine."""
        return self.said.startswith("local-dir:")


def parse_place(source: str, what: str) -> ModelPlace:
    """The place that ``local-dir:DIR`` or ``hf-hub:ORG/NAME[@revision]`` names.

    Args:
        source: see above.
        what: is to come from there, for messages.

    Raises:
        UserError: another form, or no such folder.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "local-dir" and rest:
        path = Path(rest).expanduser().resolve()
        if not path.is_dir():
            raise UserError(f"{path} is no folder: name the folder of a transformers model.")
        return ModelPlace(str(path), None, f"local-dir:{path.name}", path.name)
    if scheme == "hf-hub" and rest:
        place, _, revision = rest.partition("@")
        return ModelPlace(place, revision or None, source, place.rpartition("/")[2])
    raise UserError(f"{what} source '{source}' is unknown: use local-dir:DIR or hf-hub:ORG/NAME.")
