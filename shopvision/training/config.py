"""Training configuration: a TOML file checked against a pydantic model, and the fields that every trainer shares."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shopvision.errors import UserError

Config = TypeVar("Config", bound=BaseModel)
Decay = Literal["cosine", "linear"]


def _no_address(value: object) -> object:
    """A path would make ``s3:/`` of ``s3://``, and the file would be looked for on this machine."""
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"'{value}' is an address: copy it here, and name the copy; pictures alone may lie elsewhere")
    return value


LocalPath = Annotated[Path, BeforeValidator(_no_address)]
"""A file or folder of this machine."""


class FitConfig(BaseModel):
    """How the loop optimises; a trainer's ``[train]`` section adds its own fields.

    Attributes:
        epochs: passes over the training data.
        weight_decay: of AdamW, on every parameter whose group names no other.
        warmup_fraction: share of all steps in which the learning rates rise linearly from 0.
        decay: how they fall to 0 afterwards: by half a ``cosine``, or ``linear``.
        clip_norm: longest gradient, over all weights together; longer ones are shortened to it. None: as they are.
        precision: ``auto`` is bfloat16 (else float16) on a GPU and float32 on a CPU. Weights stay float32.
        seed: of everything that is drawn.
        select_by: the validation metric of the best epoch; ``last`` keeps the last epoch whatever it measures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(10, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    warmup_fraction: float = Field(0.01, ge=0, le=1)
    decay: Decay = "cosine"
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = Field(27, ge=0)
    select_by: str = "last"


def load_config(path: Path, model: type[Config]) -> Config:
    """The configuration in a TOML file.

    Raises:
        UserError: no such file, no TOML, or a field that is unknown, missing or wrong; the message names the field.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): name a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}.") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_fields(model, first["loc"][:-1]))
            raise UserError(f"{path}: {field} is unknown; there are {known}.") from None
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{path}: {field}: {message}.") from None


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the section at ``location``."""
    for name in location:
        inner = model.model_fields[str(name)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)
