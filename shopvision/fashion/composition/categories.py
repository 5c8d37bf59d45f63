"""The file that says which class of a detector the categories of a shop are."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shopvision.errors import UserError


def read_categories(path: Path) -> dict[str, str]:
    """Category path -> class, from JSON or TOML: ``{"Men/Shoes": "shoes", "Women/Bags": "bag"}``.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    values = _read(path)
    if not isinstance(values, dict) or not values:
        raise UserError(f'{path} must map category paths to classes, such as {{"Men/Shoes": "shoes"}}.')
    classes: dict[str, str] = {}
    for category, name in values.items():
        if not isinstance(name, str) or not name:
            hint = " (in TOML, put paths with / into quotes)" if isinstance(name, dict) else ""
            raise UserError(f"{path}: the class of the category '{category}' must be a name{hint}.")
        parts = [part.strip() for part in category.split("/")]
        if not all(parts):
            raise UserError(f"{path}: the category '{category}' has an empty part: write it as the catalogue does.")
        path_of_category = "/".join(parts)
        if classes.setdefault(path_of_category, name) != name:
            raise UserError(
                f"{path}: the category '{path_of_category}' stands there twice, as {classes[path_of_category]} and as "
                f"{name}: keep one."
            )
    return classes


def require_classes(names: Mapping[str, str], labels: Collection[str], detector: str) -> None:
    """Refuse classes that a detector does not know.

    Args:
        names: what names a class -> the class.
        labels: classes that the detector knows.
        detector: ``name:tag``, for the message.

    Raises:
        UserError: lists the unknown ones, and those there are.
    """
    unknown = [f"{name!r} ({where})" for where, name in names.items() if name not in labels]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(
            f"{detector} knows no class {', '.join(unknown[:5])}{more}: it knows {', '.join(sorted(labels))}."
        )


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"{path} cannot be read: {reason}.") from None
    try:
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        return json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:  # what both parsers raise is one
        form = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise UserError(f"{path} is no {form}: {error}.") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands there twice")
    return values
