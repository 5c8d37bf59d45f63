"""What two items may share: words of the title, model codes, attribute values.

The keys of an item are a set of texts; equal texts are equal keys, so everything that people write in several ways
(case, width, dashes, blanks) is taken out of them here. They are kept as 64-bit digests that also tell their source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key, normalise
from shopvision.matching.blocking.rows import digest
from shopvision.matching.options import Source

KEY_SCHEME = 2  # raise it where other keys, or other items, are made of the same records
BATCH_ITEMS = 2_000
_SOURCE_BITS = np.uint64(3)  # the lowest bits of a digest are its source

KEPT = 2**14  # texts whose keys are remembered: values of attributes repeat, and a title is asked for twice
LONGEST_VALUE = 200  # characters of an attribute's value: longer ones are descriptions
CODE_LENGTH = range(4, 25)
NUMBER_LENGTH = range(6, 15)  # digits alone: short article numbers up to GTIN-14

# Chinese, Japanese and Korean scripts, which put no blanks between words (or, in Korean, endings behind them).
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_DIGIT = re.compile(r"\d")
_RUNS = re.compile(f"[{_CJK}]+|[^\\W_{_CJK}]+")
_IS_CJK = re.compile(f"[{_CJK}]")
_CHUNKS = re.compile(r"[A-Z0-9](?:[A-Z0-9_./\-]*[A-Z0-9])?")
_NOT_CODE = re.compile(r"[_./\-]")
_ENDS_IN_LETTERS = re.compile(r"(.*[0-9])[A-Z]+")


def words(text: str) -> set[str]:
    """Words in lower case; runs of Chinese, Japanese or Korean by pairs of neighbouring characters."""
    found: set[str] = set()
    for run in _RUNS.findall(normalise(text).casefold()):
        if len(run) > 1 and _IS_CJK.match(run):
            found.update(run[start : start + 2] for start in range(len(run) - 1))
        else:
            found.add(run)
    return found


@lru_cache(maxsize=KEPT)
def codes(text: str) -> frozenset[str]:
    """Tokens that look like a model code, an article number or a GTIN, in capitals, without dashes and blanks.

    ``DSC-W300``, ``dsc w300`` and ``DSCW300`` give the same code: chunks are also joined with the one that follows
    after a blank. Codes mix letters and digits (4 to 24 characters), or are 6 to 14 digits.
    """
    found: set[str] = set()
    if not _DIGIT.search(text):
        return frozenset()
    text = normalise(text).upper()
    before, end = "", -1
    for match in _CHUNKS.finditer(text):
        chunk = _NOT_CODE.sub("", match[0])
        if _is_code(chunk):
            found.add(chunk)
        if match.start() == end + 1 and text[end].isspace() and _is_code(before + chunk) and not before.isdigit():
            found.add(before + chunk)
        before, end = chunk, match.end()
    return frozenset(found)


def stems(found: Set[str]) -> set[str]:
    """Codes without the letters at their end, which often name a colour or a market: ``KDL46XBRB`` is ``KDL46``."""
    matches = (_ENDS_IN_LETTERS.fullmatch(code) for code in found)
    return {match[1] for match in matches if match and _is_code(match[1])}


Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class KeyedItems:
    """Some items in the catalogue's order.

    Attributes:
        item_ids: n of them.
        categories: n paths, as blocking reads them.
        counts: (n,) int64, how many keys each has.
        keys: of all of them, one item after the other.
    """

    item_ids: list[str]
    categories: list[str]
    counts: NDArray[np.int64]
    keys: Keys


def keyed_items(items: Iterable[Item]) -> Iterator[KeyedItems]:
    """Items with their keys, in batches."""
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH_ITEMS)):
        keys = [key_digests(item) for item in batch]
        yield KeyedItems(
            [item.item_id for item in batch],
            [blocking_category(item) for item in batch],
            np.fromiter(map(len, keys), np.int64, len(keys)),
            np.concatenate(keys),
        )


def key_digests(item: Item) -> Keys:
    """All keys of an item, distinct."""
    found = [_digest(key, number) for number, keys_of in enumerate(KEY_SOURCES.values()) for key in keys_of(item)]
    return np.unique(np.array(found, np.uint64))


def of_source(keys: Keys, source: Source) -> NDArray[np.bool_]:
    """Which keys are of a source."""
    return np.asarray((keys & _SOURCE_BITS) == np.uint64(list(KEY_SOURCES).index(source)))


def blocking_category(item: Item) -> str:
    """The path by which items are compared or not."""
    return item.category_path or item.category


@lru_cache(maxsize=2**17)  # most words of a title are frequent ones
def _digest(key: str, source: int) -> int:
    return digest(key) & ~int(_SOURCE_BITS) | source


def title_keys(item: Item) -> set[str]:
    """Words of title and brand, and the title's codes with their stems."""
    found = codes(item.title)
    return words(f"{item.title} {item.brand}") | found | stems(found)


def code_keys(item: Item) -> set[str]:
    """Codes of the title and of all attribute values, with their stems, whatever the attribute is called."""
    found = set(codes(item.title))
    for values in item.attributes.values():
        for value in values:
            if len(value) <= LONGEST_VALUE:
                found |= codes(value)
    return found | stems(found)


def attribute_keys(item: Item) -> set[str]:
    """Attribute and value together, both without regard to capitals and to punctuation at their ends."""
    return {
        f"{attribute_key(name)}={_folded(value)}"
        for name, values in item.attributes.items()
        for value in values
        if len(value) <= LONGEST_VALUE and _folded(value)
    }


@lru_cache(maxsize=KEPT)
def _folded(text: str) -> str:
    return " ".join(normalise(text).casefold().split()).strip(" .,;:-_/")


def _is_code(text: str) -> bool:
    if text.isdigit():
        return len(text) in NUMBER_LENGTH
    return len(text) in CODE_LENGTH and not text.isalpha()


KEY_SOURCES: dict[Source, Callable[[Item], Collection[str]]] = {
    "code": code_keys,
    "attribute": attribute_keys,
    "words": title_keys,
}
