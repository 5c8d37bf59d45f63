"""The card of a model version: everything needed to run it, and where it came from."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
)

from shopvision.errors import UserError
from shopvision.evaluation.promises import ShownPromises
from shopvision.images.preprocessing import Preprocessing

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
# A name or a tag becomes a folder in object storage and on disk.
_FOLDER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
FolderName = Annotated[str, StringConstraints(pattern=rf"^{_FOLDER_NAME}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Architecture(BaseModel):
    """Which library builds the network, under which name and with which arguments; the weights are never in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: Literal["timm", "transformers", "shopvision"] = "timm"
    name: str
    arguments: dict[str, Any] = {}


class ModelCard(BaseModel):
    """``card.json``. Equal cards mean equal models: the files are named with their sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    name: FolderName
    tag: FolderName
    kind: str = Field(description="what the model does, e.g. image_encoder")
    architecture: Architecture
    preprocessing: Preprocessing | None = Field(None, description="how a picture becomes input; None for text models")
    dimension: int | None = Field(None, gt=0, description="length of the vectors; None where there are none")
    licence: str = "unknown"
    source: str = Field(description="where the weights came from, as given to `models import`")
    training_data: str = "unknown"
    metrics: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    promises: ShownPromises | None = Field(None, description="what the thresholds were shown to keep, if they were")
    files: dict[str, Sha256] = Field(description="file name -> sha256, the card itself left out")

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A card without promises reads as cards did before there were any, and keeps its tag."""
        values: dict[str, Any] = serialize(self)
        if values.get("promises") is None:
            values.pop("promises", None)
        return values

    @property
    def spec(self) -> str:
        """``name:tag``."""
        return f"{self.name}:{self.tag}"

    def to_bytes(self) -> bytes:
        """The text of ``card.json``; the same card always gives the same bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def content_tag(self) -> str:
        """A tag made from everything but the tag itself: 12 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude={"tag"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def renamed(self, name: str | None, tag: str | None) -> ModelCard:
        """The same version under another name or tag; a tag that was made from the content is made anew.

        Raises:
            UserError: name or tag cannot be the name of a folder.
        """
        require_folder_names(name=name, tag=tag)
        renamed = self.model_copy(update={"name": name or self.name, "tag": tag or self.tag})
        if tag is None and self.tag == self.content_tag():
            return renamed.model_copy(update={"tag": renamed.content_tag()})
        return renamed

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ModelCard:
        """Read a card.

        Raises:
            UserError: the text is no card; the message names ``where``, the field and what is wrong with it.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "text"
            raise UserError(f"{where} is not a model card: {field}: {first['msg']}.") from None


def require_folder_names(**given: str | None) -> None:
    """Refuse names and tags of model versions that cannot be the name of a folder; None stands for none.

    Raises:
        UserError: with the first of them.
    """
    for what, name in given.items():
        if name is not None and not re.fullmatch(_FOLDER_NAME, name):
            raise UserError(f"{what} '{name}': use letters, digits, '.', '_' and '-', the first a letter or digit.")


def as_folder_name(text: str) -> str:
    """``text`` with what a model's name may not hold replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:128] or "model"


def own_folder_name(text: str) -> str:
    """Likewise, and no other text has the same: where something was replaced, a mark of the text follows."""
    name = as_folder_name(text)
    return name if name == text else f"{name[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def split_spec(spec: str) -> tuple[str, str]:
    """``"name:tag"`` -> ``("name", "tag")``.

    Raises:
        UserError: the text has another form.
    """
    name, _, tag = spec.partition(":")
    if not (re.fullmatch(_FOLDER_NAME, name) and re.fullmatch(_FOLDER_NAME, tag)):
        raise UserError(f"'{spec}' is not NAME:TAG. `shopvision models list` shows what there is.")
    return name, tag
