"""What networks of our own are built from, as their cards hold it."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shopvision.errors import UserError
from shopvision.models.card import Architecture


class ArchitectureArguments(BaseModel):
    """Base of what is stored in ``architecture.arguments`` of a card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, architecture: Architecture) -> Self:
        """The arguments of an architecture.

        Raises:
            UserError: a field is missing, unknown or wrong; the message names it.
        """
        try:
            return cls.model_validate(architecture.arguments)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, ("architecture", "arguments", *first["loc"])))
            raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}.") from None
