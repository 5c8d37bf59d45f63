"""Offers written otherwise: what another shop might have left out, moved or not known of the same product.

Each function makes another text of one, drawn from a generator, and never an empty one of one that has words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from shopvision.items.item import Item

Augmentation = Literal["drop_word", "swap_words", "delete_span", "mask_code"]

LONGEST_SPAN = 4  # words
# What letters and digits make up together, or digits alone, five of them and more. No code goes on into Chinese or
# Korean, where no blank stands behind it.
_PART = "[^\\s\u2e80-\u9fff\uac00-\ud7af]"
_CODE = re.compile(
    rf"(?<!{_PART})(?={_PART}*\d)(?={_PART}*[^\W\d_\u2e80-\u9fff\uac00-\ud7af]|{_PART}*\d{{5}}){_PART}{{4,}}"
)


def drop_word(text: str, generator: np.random.Generator) -> str:
    """Without one word."""
    words = text.split()
    if len(words) > 1:
        del words[int(generator.integers(len(words)))]
    return " ".join(words)


def swap_words(text: str, generator: np.random.Generator) -> str:
    """With two words in each other's place."""
    words = text.split()
    if len(words) > 1:
        a, b = generator.choice(len(words), 2, replace=False).tolist()
        words[a], words[b] = words[b], words[a]
    return " ".join(words)


def delete_span(text: str, generator: np.random.Generator) -> str:
    """Without some words that stand together, at most ``LONGEST_SPAN`` and half of all."""
    words = text.split()
    longest = min(LONGEST_SPAN, len(words) // 2)
    if longest:
        length = int(generator.integers(1, longest + 1))
        start = int(generator.integers(len(words) - length + 1))
        del words[start : start + length]
    return " ".join(words)


def mask_code(text: str, generator: np.random.Generator) -> str:
    """Without one of the model codes as they look, so that the rest has to tell the product."""
    codes = [found.span() for found in _CODE.finditer(text)]
    if not codes:
        return " ".join(text.split())
    start, end = codes[int(generator.integers(len(codes)))]
    return " ".join(f"{text[:start]} {text[end:]}".split()) or text


AUGMENTATIONS: Mapping[Augmentation, Callable[[str, np.random.Generator], str]] = {
    "drop_word": drop_word,
    "swap_words": swap_words,
    "delete_span": delete_span,
    "mask_code": mask_code,
}


def augmented(item: Item, names: Sequence[Augmentation], generator: np.random.Generator) -> Item:
    """The item, its title and its description each changed by one of the augmentations of these names."""
    chosen = [AUGMENTATIONS[names[number]] for number in generator.integers(len(names), size=2).tolist()]
    title, description = (
        change(text, generator) for change, text in zip(chosen, (item.title, item.description), strict=True)
    )
    return replace(item, title=title, description=description)
