"""What a catalogue record looks like: an item and a promotion plan, checked and brought to one form.

==========================  ========  ================================================================================
key of an item                        meaning
==========================  ========  ================================================================================
``item_id``                 required  at most 200 characters
``images``                            list of ``{uri|file, view?}`` or of plain addresses; the first one leads
``title``, ``brand``                  text
``description``                       text
``category``                          path: ``Men/Tops/Hoodies``, or a list of its parts
``attributes``                        list of ``{key, value}``; keys may repeat
``sku_attributes``                    the same, for properties of the single variant
``price``, ``currency``               a number that is not negative; a three-letter code such as EUR
``source``                            where the item comes from: a seller, a supplier, a feed
``updated_at``                        ISO 8601 or Unix seconds; UTC where it names no zone
==========================  ========  ================================================================================

==========================  ========  ================================================================================
key of a plan                         meaning
==========================  ========  ================================================================================
``plan_id``, ``name``       required  text
``desc``, ``date``                    text
``cat1`` .. ``cat4``                  text
``kwds``                              list of keywords, or one text with commas
``member_item_ids``                   list of item ids; unknown ones are kept, the item may arrive later
==========================  ========  ================================================================================

Every other key is kept in ``extra``. Where a list is expected, a text is read as JSON or as parts between ``|``
(attributes: ``key:value|key:value``; keywords: commas). Text is NFC-normalised and stripped, and an empty text counts
as absent; picture addresses stay byte for byte, because files and object keys are named by bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import from_json
from typing_extensions import TypedDict

from shopvision.catalogue.record_texts import composed


def _no_fraction(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("a number with a fraction is no id; write ids as text")  # noqa: TRY004 - what pydantic expects
    return value


def number_text(value: float) -> str:
    """A number where text is expected, as somebody would have written it: 42 for 42.0.

    Raises:
        ValueError: it is not finite, or so large that its last digits are lost.
    """
    if not value.is_integer():
        if math.isfinite(value):
            return repr(value)
        raise ValueError("not a finite number; leave it out where there is none")
    if abs(value) > MAX_EXACT_FLOAT:
        raise ValueError(f"{value!r} has lost its last digits; write it as text")
    return str(int(value))


def _written(value: Any) -> Any:
    return number_text(value) if type(value) is float else value


def _absent_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _price(value: Any) -> Any:
    """Python takes more for a number than shops do."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError("not a number; write it like 19.90")
    return _absent_if_blank(value)


def _parts(separator: str, *, as_bytes: bool = False) -> Callable[[Any], Any]:
    def split(value: Any) -> Any:
        if value is None:
            return []
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                listed = from_json(value, allow_inf_nan=False)
            except ValueError as error:
                raise ValueError(f"broken JSON ({error})") from None
            checked = composed(listed)  # what is escaped in a text was none of the record's texts yet
            return listed if as_bytes else checked
        return [part for part in map(str.strip, value.split(separator)) if part]

    return split


def _attributes(value: Any) -> Any:
    parts = _parts("|")(value)
    if not isinstance(value, str):
        return parts
    return [_key_and_value(part) if isinstance(part, str) else part for part in parts]


def _key_and_value(part: str) -> dict[str, str]:
    key, colon, value = part.partition(":")
    if not colon:
        raise ValueError(f"{part[:80]!r} has no colon; write key:value|key:value")
    return {"key": key, "value": value}


def _pictures(value: Any) -> Any:
    parts = _parts("|", as_bytes=True)(value)
    if not isinstance(parts, list):
        return parts
    return [{"uri" if "://" in part else "file": part} if isinstance(part, str) else part for part in parts]


def _path(value: Any) -> Any:
    return "/".join(str(_written(part)).strip() for part in value) if isinstance(value, list) else _written(value)


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


MAX_ID_CHARACTERS = 200
MAX_EXACT_FLOAT = 2**53  # up to here every whole number is a float

# Lengths keep index rows below Postgres' 2,704 bytes at four bytes a character: an id beside an address, a category.
# Annotations apply from left to right, and only a constraint next to the type is checked by pydantic's fast core.
Id = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ID_CHARACTERS),
    BeforeValidator(_no_fraction),
]
Category = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), BeforeValidator(_path)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), BeforeValidator(_written)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000), BeforeValidator(_written)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100_000), BeforeValidator(_written)]
Price = Annotated[
    float, Field(ge=0, le=1e12, allow_inf_nan=False)
]  # 15 digits are exact; Decimal costs five times the time
Currency = Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{3}$")]


class Attribute(TypedDict):
    """A property of an item."""

    key: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), BeforeValidator(_written)
    ]
    value: Line | None


class Picture(TypedDict):
    """A picture: an address, or a file below the picture root."""

    uri: NotRequired[str | None]
    file: NotRequired[str | None]
    view: NotRequired[Line | None]


class Record(BaseModel):
    """What items and plans share: unknown keys are kept, numbers may stand where text is expected."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, hide_input_in_errors=True)


class Item(Record):
    """An item as it comes in."""

    item_id: Id
    images: Annotated[list[Picture], Field(default_factory=list, max_length=200), BeforeValidator(_pictures)]
    title: Line | None = None
    brand: Line | None = None
    category: Category | None = None
    attributes: Annotated[list[Attribute], Field(default_factory=list, max_length=500), BeforeValidator(_attributes)]
    sku_attributes: Annotated[
        list[Attribute], Field(default_factory=list, max_length=500), BeforeValidator(_attributes)
    ]
    price: Annotated[Price | None, BeforeValidator(_price)] = None
    currency: Annotated[Currency | None, BeforeValidator(_absent_if_blank)] = None
    description: Prose | None = None
    source: Name | None = None
    updated_at: Annotated[datetime | None, BeforeValidator(_absent_if_blank)] = None


class Plan(Record):
    """A promotion plan as it comes in."""

    plan_id: Id
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
    desc: Prose | None = None
    date: Annotated[Line | None, BeforeValidator(_iso)] = None
    cat1: Line | None = None
    cat2: Line | None = None
    cat3: Line | None = None
    cat4: Line | None = None
    kwds: Annotated[list[Line], Field(default_factory=list, max_length=1_000), BeforeValidator(_parts(","))]
    member_item_ids: Annotated[list[Id], Field(default_factory=list, max_length=100_000), BeforeValidator(_parts("|"))]
