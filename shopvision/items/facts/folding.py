"""One form for texts that statements are looked for in."""

from __future__ import annotations

from shopvision.items.text_normalisation import normalise


def folded(text: str) -> str:
    """Normalised, without capitals, with the letter x for a sign of multiplication."""
    return normalise(text).casefold().replace("\u00d7", "x")
