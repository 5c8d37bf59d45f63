"""From an item to the texts a model reads: its title, and its attributes as ordered pieces.

=====================  ===============================================================================================
builder                pieces
=====================  ===============================================================================================
``title``              none
``title_attributes``   brand, the attributes in the item's own order, price, description
``frequency``          brand, the attributes by how many items of the category have them, price, description
``aligned``            like ``frequency``, but in a pair the keys that both items have come first, in one order for
                       both (equal frequencies are ordered by key, so that the two sides do line up)
=====================  ===============================================================================================

A piece is ``key:value1,value2;``. Its values are sorted, so that an item has one text whatever its source's order.
The key is spelled as the shop does; capitals make no other key of it where keys are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from shopvision.errors import UserError
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.chinese_words import with_blanks
from shopvision.items.code_agreement import ItemCodes, item_codes
from shopvision.items.item import Item
from shopvision.items.text_normalisation import MAX_TEXT_CHARACTERS, attribute_key, normalise

BuilderName = Literal["title", "title_attributes", "frequency", "aligned"]
Segmenter = Literal["none", "jieba"]

FIRST = "brand"
LAST = ("price", "description")
# All pieces of an item together. The first 512 tokens decide, and attribute lists are at most a few hundred characters.
MAX_PIECES_CHARACTERS = 16_000


@dataclass(frozen=True)
class ItemText:
    """The texts of one item.

    Attributes:
        keys: of the pieces as ``attribute_key`` gives them, distinct.
        pieces: ``key:v1,v2;`` each; price and description come last.
        codes: of the item's model, where the builder compares them.
    """

    title: str
    keys: tuple[str, ...]
    pieces: tuple[str, ...]
    codes: ItemCodes | None = None


class TextBuilder:
    """Makes texts of items; the same text in training and serving, whatever ``PYTHONHASHSEED``."""

    def __init__(
        self,
        name: BuilderName,
        *,
        statistics: CategoryStatistics | None = None,
        segmenter: Segmenter = "none",
        compare_codes: bool = False,
        common_codes: Iterable[str] = (),
    ) -> None:
        """Build as ``name`` says.

        Args:
            statistics: of the training items; ``frequency`` and ``aligned`` need them.
            segmenter: ``jieba`` puts blanks between Chinese words, for models that were trained so.
            compare_codes: let pairs begin with what the items' model codes say, see ``code_agreement``.
            common_codes: of the training items; they say nothing.

        Raises:
            UserError: there is no such builder or segmenter, or the builder has no statistics.
        """
        for kind, value, known in (("builder", name, BuilderName), ("segmenter", segmenter, Segmenter)):
            if value not in get_args(known):
                raise UserError(f"There is no text {kind} {value!r}. Take one of {', '.join(get_args(known))}.")
        if name in {"frequency", "aligned"} and statistics is None:
            raise UserError(f"The text builder {name!r} orders by frequency: give it the training items' statistics.")
        self.name = name
        self.segmenter = segmenter
        self.compare_codes, self._common_codes = compare_codes, frozenset(common_codes)
        self.statistics = statistics or CategoryStatistics()

    def item(self, item: Item) -> ItemText:
        """The item's texts, pieces in its own order."""
        title = self._words(normalise(item.title))
        codes = item_codes(item, self._common_codes) if self.compare_codes else None
        if self.name == "title":
            return ItemText(title, (), (), codes)
        contents = _pieces(item)
        keys = list(contents)
        if self.name != "title_attributes":
            keys.sort(key=lambda key: (_rank(key), -self.statistics.count(item.category, key), key))
        kept, pieces, room = [], [], MAX_PIECES_CHARACTERS
        for key in keys:
            name, values = contents[key]
            piece = f"{name}:{','.join(values)[:MAX_TEXT_CHARACTERS]};"
            room -= len(piece)
            if room < 0:
                break
            kept.append(key)
            pieces.append(self._words(piece))
        return ItemText(title, tuple(kept), tuple(pieces), codes)

    def order(
        self, left: ItemText, left_category: str, right: ItemText, right_category: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """In which order the pieces of each side stand in this pair: positions in ``pieces``."""
        if self.name != "aligned":
            return tuple(range(len(left.keys))), tuple(range(len(right.keys)))
        common = set(left.keys) & set(right.keys)
        count = self.statistics.count

        def ordered(side: ItemText, category: str) -> tuple[int, ...]:
            def rank(position: int) -> tuple[int, bool, int, int, str]:
                key = side.keys[position]
                if key in common:
                    frequency = count(left_category, key) + count(right_category, key)
                else:
                    frequency = count(category, key)
                # Price and description stay last, so that a long description pushes out no attribute.
                last = max(_rank(key), 1)
                return last, key not in common, _rank(key), -frequency, key

            return tuple(sorted(range(len(side.keys)), key=rank))

        return ordered(left, left_category), ordered(right, right_category)

    def _words(self, text: str) -> str:
        return text if self.segmenter == "none" else with_blanks(text)


def _rank(key: str) -> int:
    """0 for the brand, 1 for attributes, then price and description."""
    return 0 if key == FIRST else 2 + LAST.index(key) if key in LAST else 1


def _pieces(item: Item) -> dict[str, tuple[str, list[str]]]:
    """Key -> its spelling and its sorted normalised values; brand first, price and description last."""
    names = {FIRST: FIRST}
    merged = {FIRST: {normalise(item.brand)}}
    for name, values in item.attributes.items():
        key = attribute_key(name)
        names.setdefault(key, normalise(name))
        merged.setdefault(key, set()).update(map(normalise, values))
    for key in LAST:
        names[key] = key
        merged[key] = merged.pop(key, set()) | {normalise(getattr(item, key))}
    return {key: (names[key], sorted(kept)) for key, values in merged.items() if key and (kept := values - {""})}
