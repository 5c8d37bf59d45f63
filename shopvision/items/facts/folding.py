"""One form for texts that statements are looked for in."""

from __future__ import annotations

from shopvision.items.text_normalisation import normalise

# For regular expressions: what stands before and behind is no part of it. Chinese and Korean put no blanks there.
_SPACED = r"[^\W\u4e00-\u9fff\uac00-\ud7af]"
BEGINS, ENDS = f"(?<!{_SPACED})", f"(?!{_SPACED})"


def folded(text: str) -> str:
    """Normalised, without capitals, with the letter x for a sign of multiplication."""
    return normalise(text).casefold().replace("\u00d7", "x")
