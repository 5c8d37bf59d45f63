"""Foreign column names: a small TOML file says which of their columns fills which of our fields.

.. code-block:: toml

    [columns]                       # our field = their column
    item_id = "sku"
    title = "product_name"
    images = ["photo", "photo_2"]   # lists may be gathered from several columns
    attributes = ["colour", "size"] # each column becomes an attribute of that name

    [constants]                     # fields that no column holds
    currency = "EUR"

    [separators]                    # between the parts of one cell, where it is not ours
    images = ";"
    category = " > "

    [images]
    prefix = "https://cdn.example/" # before every picture address

Columns that are not mapped keep their names; those that are none of our fields are kept in ``extra``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shopvision.errors import UserError

GATHERED = {"images", "attributes", "sku_attributes", "kwds", "member_item_ids"}
PAIRS = {"attributes", "sku_attributes"}
SPLIT = GATHERED | {"category"}


class _Images(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prefix: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str | list[str]] = {}
    constants: dict[str, Any] = {}
    separators: dict[str, str] = {}
    images: _Images = _Images()


@dataclass(frozen=True)
class Mapping:
    """See the module's docstring."""

    columns: dict[str, str | list[str]]
    constants: dict[str, Any]
    separators: dict[str, str]
    image_prefix: str

    @classmethod
    def load(cls, path: Path, model: type[BaseModel]) -> Mapping:
        """Read a mapping file for records of ``model``.

        Raises:
            UserError: the file is missing or not TOML, a section or field is unknown, a value has the wrong form.
        """
        try:
            with path.open("rb") as file:
                content = _File.model_validate(tomllib.load(file))
        except OSError as error:
            raise UserError(f"--map {path}: {error.strerror}. Name a TOML file.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"--map {path}: not TOML ({error}). Correct it.") from None
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(
                f"--map {path}: {place} is unknown or of the wrong form. Sections are [columns] with our field = "
                "their column, [constants], [separators] and [images] with prefix."
            ) from None
        for field in [*content.columns, *content.constants, *content.separators]:
            if field not in model.model_fields:
                near = get_close_matches(field, model.model_fields, n=1)
                hint = f"did you mean {near[0]}?" if near else f"fields are {', '.join(model.model_fields)}."
                raise UserError(f"--map {path}: unknown field {field}; {hint}")
        wrong = [
            field for field, column in content.columns.items() if isinstance(column, list) and field not in GATHERED
        ]
        wrong += [field for field, separator in content.separators.items() if field not in SPLIT or not separator]
        if wrong:
            raise UserError(f"--map {path}: {wrong[0]} holds one value. Lists are {', '.join(sorted(SPLIT))}.")
        return cls(content.columns, content.constants, content.separators, content.images.prefix)

    def apply(self, record: dict[str, Any]) -> dict[str, Any]:
        """``record`` under our field names."""
        taken = {name for column in self.columns.values() for name in ([column] if isinstance(column, str) else column)}
        result = {**self.constants, **{key: value for key, value in record.items() if key not in taken}}
        for field, column in self.columns.items():
            value = self._gathered(field, column, record) if isinstance(column, list) else record.get(column)
            if value is not None:
                result[field] = value
        for field, separator in self.separators.items():
            if isinstance(result.get(field), str):
                result[field] = [part.strip() for part in result[field].split(separator) if part.strip()]
        if self.image_prefix:
            result["images"] = [self._prefixed(picture) for picture in _list(result.get("images"))]
        return result

    def _gathered(self, field: str, columns: list[str], record: dict[str, Any]) -> list[Any]:
        values = [(column, record[column]) for column in columns if record.get(column) not in (None, "")]
        if field in PAIRS:
            return [{"key": column, "value": value} for column, value in values]
        separator = self.separators.get(field, "|")
        return [part for _, value in values for part in _list(value, separator)]

    def _prefixed(self, picture: Any) -> Any:
        if isinstance(picture, str):
            return picture if "://" in picture else {"uri": self.image_prefix + picture}
        if isinstance(picture, dict) and not picture.get("uri"):
            return {**picture, "uri": f"{self.image_prefix}{picture.get('file')}"}
        return picture


def _list(value: Any, separator: str = "|") -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator) if part.strip()]
    return list(value) if isinstance(value, list) else [value]
