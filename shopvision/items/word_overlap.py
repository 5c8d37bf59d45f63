"""Words of item texts, for people to compare and as the simplest way to tell whether two titles are alike."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from shopvision.items.pair_table import PairTable
from shopvision.items.text_normalisation import normalise

# Letters and digits; scripts that put no blanks between words go by character.
_UNSPACED = "\u2e80-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def distinct_words(text: str) -> set[str]:
    """The words of a normalised text, without regard to capitals."""
    return {word.casefold() for word in WORD.findall(text)}


def token_jaccard(table: PairTable) -> NDArray[np.float64]:
    """(n,) words that both titles share, as a share of all their words: what a pair model has to beat."""
    words = {row: distinct_words(normalise(table.items[row].title)) for row in table.item_rows().tolist()}
    sides = ((words[a], words[b]) for a, b in zip(table.left.tolist(), table.right.tolist(), strict=True))
    return np.array([len(a & b) / (len(a | b) or 1) for a, b in sides])
