"""Which class of garment a category of the shop holds, by the words in its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

# English names that shops use, for the classes of docs/training-a-detector.md; a detector of other classes is found by
# the name of the class itself.
NAMES: Mapping[str, str] = {
    "bag": "backpack bag clutch duffel handbag purse rucksack satchel tote wallet",
    "belt": "belt",
    "bottom": "bottom capri chino jeans jogger legging pants shorts skirt stocking sweatpants tights trousers",
    "dress": "dress gown sundress",
    "eyewear": "eyewear glasses spectacles sunglasses",
    "glove": "glove mitten",
    "hat": "beanie cap hat headwear",
    "jumpsuit": "dungarees jumpsuit overalls playsuit romper",
    "outer": "anorak blazer cape cardigan coat jacket outer outerwear parka poncho vest waistcoat windbreaker",
    "shoes": "boot flats flops footwear heel loafer sandal shoe slipper sneaker trainer",
    "top": "blouse bra camisole hoodie jersey jumper knitwear polo pullover shirt sweater sweatshirt tank tee top"
    " tshirt tunic",
    "watch": "watch",
}
_WORD = re.compile(r"[^\W\d_]+")


def classes_by_category(categories: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """The class of each category that has one.

    Args:
        categories: paths, such as ``Women/Tops/Jackets``. The last part that says anything counts, and in it the last
            word that does: a dress shirt is a top.
        known: classes that there are; no other one is given.
    """
    by_word = {word: name for name, words in NAMES.items() if name in known for word in words.split()}
    by_word |= {_singular(word): name for name in known for word in _WORD.findall(name.casefold())}
    found = ((category, _first(_said_last_first(category), by_word)) for category in categories)
    return {category: name for category, name in found if name is not None}


def _first(words: Iterable[str], by_word: Mapping[str, str]) -> str | None:
    for word in words:
        if (name := by_word.get(word) or by_word.get(_singular(word))) is not None:
            return name
    return None


def _said_last_first(category: str) -> Iterator[str]:
    for part in reversed(category.casefold().split("/")):
        yield from reversed(_WORD.findall(part))


def _singular(word: str) -> str:
    if word.endswith(("sses", "shes", "ches")):
        return word[:-2]
    return word if word.endswith("ss") else word.removesuffix("s")
