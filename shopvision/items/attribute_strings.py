"""Attribute strings of the CCKS 2022 item files: ``key#:#value#;#key#:#value``."""

from __future__ import annotations

from collections.abc import Iterable

from shopvision.errors import ItemError
from shopvision.items.text_normalisation import attribute_key

BETWEEN_PAIRS = "#;#"
BETWEEN_KEY_AND_VALUE = "#:#"
SHOWN_CHARACTERS = 60


def parse_attributes(text: str) -> list[tuple[str, str]]:
    """The (key, value) pairs in order, stripped; a key repeats where it has several values.

    A pair is cut at its first ``#:#``, so a value may hold ``#``, ``:`` and ``;``. Empty parts, and pairs whose key or
    value is empty, say nothing and are left out.

    Raises:
        ItemError: ``broken_attributes``, a part has no ``#:#``.
    """
    pairs = []
    for number, part in enumerate(text.split(BETWEEN_PAIRS), 1):
        key, separator, value = part.partition(BETWEEN_KEY_AND_VALUE)
        if separator:
            key, value = key.strip(), value.strip()
            if key and value:
                pairs.append((key, value))
        elif part.strip():
            shown = part.strip()[:SHOWN_CHARACTERS]
            raise ItemError(
                "broken_attributes",
                f"attribute {number} is broken: {shown!r} has no {BETWEEN_KEY_AND_VALUE} between key and value; "
                "correct the attribute string",
            )
    return pairs


def merge_attributes(*sources: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """key -> its distinct values over all sources, sorted by code point; keys in first-seen order.

    Keys that differ in capitals, width or blanks are one; it is spelled as it was first seen.
    """
    merged: dict[str, tuple[str, set[str]]] = {}
    for source in sources:
        for key, value in source:
            merged.setdefault(attribute_key(key), (key, set()))[1].add(value)
    return {key: tuple(sorted(values)) for key, values in merged.values()}
