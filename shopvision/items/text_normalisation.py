"""One form for texts of any language before they are cut into words or tokens."""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, normalize

# A title of 100 KB is a mistake, and no model reads more than some hundred tokens.
MAX_TEXT_CHARACTERS = 4_000

# NFKC takes Korean letters that stand alone (U+3131 and after, the narrow ones from U+FFA1 on) for parts of a syllable
# and joins them with what follows; an accent that stands alone, as in Levi\u00b4s, it turns into a blank and a mark.
_LEAVE = "\u3131-\u3163\u3165-\u318e\uffa1-\uffdc\u00a8\u00af\u00b4\u00b8\u02d8-\u02dd"
_ENDS = " .,;:-_/"  # of an attribute's name, as in "Colour:"
_TO_NFKC = re.compile(f"[^{_LEAVE}]+")
_HANGUL_FILLERS = {0x115F, 0x1160, 0x3164, 0xFFA0}  # letters by category, blanks to the eye


class _Characters(dict[int, int | str | None]):
    """For ``str.translate``: control characters and blanks become a blank, invisible format characters vanish."""

    def __missing__(self, code: int) -> int | str | None:
        kind = category(chr(code))
        blank = kind in {"Cc", "Cs", "Zs", "Zl", "Zp"} or code in _HANGUL_FILLERS
        self[code] = " " if blank else None if kind == "Cf" else code
        return self[code]


_CHARACTERS = _Characters()


def normalise(text: str) -> str:
    """``text`` in NFKC, every run of blanks and control characters one blank, cut after ``MAX_TEXT_CHARACTERS``.

    Full-width letters become plain ones, Hangul is composed into syllables, and letters of other scripts stay.
    """
    text = text[:MAX_TEXT_CHARACTERS].translate(_CHARACTERS)
    if not text.isascii():
        text = _TO_NFKC.sub(lambda found: normalize("NFKC", found[0]), text)
    return " ".join(text.split())


@lru_cache(maxsize=2**14)  # a shop has some hundred, and every item names them again
def attribute_key(name: str) -> str:
    """By what names of attributes are compared: ``Colour:`` and ``COLOUR`` are one; never for showing."""
    folded = normalise(normalise(name).casefold())
    return folded.strip(_ENDS) or folded
