"""Offers written otherwise: what another shop might have left out, moved or not known of the same product.

Each function makes another text of one, drawn from a generator, and never an empty one of one that has words. Words
are those between blanks, and Chinese ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from shopvision.items.chinese_words import has_chinese, with_blanks

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
    words = _Words.of(text)
    if len(words.words) > 1:
        words.remove(int(generator.integers(len(words.words))), 1)
    return words.text()


def swap_words(text: str, generator: np.random.Generator) -> str:
    """With two words in each other's place."""
    found = _Words.of(text)
    words = found.words
    if len(words) > 1:
        a, b = generator.choice(len(words), 2, replace=False).tolist()
        words[a], words[b] = words[b], words[a]
    return found.text()


def delete_span(text: str, generator: np.random.Generator) -> str:
    """Without some words that stand together, at most ``LONGEST_SPAN`` and half of all."""
    words = _Words.of(text)
    longest = min(LONGEST_SPAN, len(words.words) // 2)
    if longest:
        length = int(generator.integers(1, longest + 1))
        words.remove(int(generator.integers(len(words.words) - length + 1)), length)
    return words.text()


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


@dataclass
class _Words:
    """The words of a text, Chinese ones too.

    Attributes:
        words: in order.
        apart: of each place, whether a blank stands before it.
    """

    words: list[str]
    apart: list[bool]

    @classmethod
    def of(cls, text: str) -> _Words:
        parts = [with_blanks(part).split() for part in text.split()]
        return cls(
            [word for part in parts for word in part], [place == 0 for part in parts for place in range(len(part))]
        )

    def remove(self, start: int, count: int) -> None:
        del self.words[start : start + count], self.apart[start : start + count]

    def text(self) -> str:
        """With blanks where they stood, and between what is not Chinese."""
        text = ""
        for word, apart in zip(self.words, self.apart, strict=True):
            joined = not apart and (has_chinese(text[-1:]) or has_chinese(word[0]))
            text += word if joined else f" {word}"
        return text.strip()
