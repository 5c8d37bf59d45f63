"""Chinese words, between which no blanks stand."""

from __future__ import annotations

import re

_CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
# What jieba takes as one stretch. All else it would take apart, Korean into single syllables.
_STRETCH = re.compile(f"[0-9A-Za-z+#&._%{_CHINESE}-]+")
_HAS_CHINESE = re.compile(f"[{_CHINESE}]")


def has_chinese(text: str) -> bool:
    """Whether a Chinese character is in it."""
    return not text.isascii() and _HAS_CHINESE.search(text) is not None


def with_blanks(text: str) -> str:
    """The text with one blank between Chinese words, and in place of all other space."""
    if text.isascii():
        return text
    return " ".join(_STRETCH.sub(_cut, text).split())


def _cut(found: re.Match[str]) -> str:
    if not has_chinese(found[0]):
        return found[0]
    from rjieba import cut

    return f" {' '.join(cut(found[0]))} "
