"""What an item states, in forms that two items can be compared by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from shopvision.items.code_agreement import ItemCodes, item_codes
from shopvision.items.facts.colours import colours
from shopvision.items.facts.counts_and_sizes import audience, pack_counts, sizes
from shopvision.items.facts.folding import folded
from shopvision.items.facts.measures import Measure, measures
from shopvision.items.identifiers import identifiers
from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key
from shopvision.items.word_overlap import distinct_words

LONGEST_VALUE = 200  # characters of an attribute's value: longer ones are descriptions

_BARE_NUMBER = re.compile(r"(?<![\w.,])\d{1,5}(?:[.,]\d+)?(?![\w.,]?\w)")
# Thousands apart by commas, points, blanks or apostrophes, or not at all.
_PRICE = re.compile(
    r"(?<!\d)(?P<number>(?:\d{1,3}(?:[., '\u2019]\d{3}){1,4}|\d{1,15})(?!\d)(?:[.,]\d+)?)"
    r"(?:[ ]?(?P<myriad>[万만]))?"
)
_BETWEEN = re.compile("[ '\u2019]")
_CODE = re.compile(
    "(?<![a-z])(?:usd|eur|gbp|cny|rmb|krw|jpy|hkd|twd|sgd|aud|cad|nzd|chf|pln|czk|huf|ron|sek|nok|dkk|inr|brl|mxn|try"
    "|rub|uah|thb|vnd|idr|myr|php|ils|aed|sar|zar)(?![a-z])"
)
_SAME_CODE = {"rmb": "cny"}
_SIGNS = {"$": "usd", "hk$": "hkd", "nt$": "twd", "a$": "aud", "c$": "cad", "s$": "sgd", "us$": "usd", "r$": "brl",
          "€": "eur", "£": "gbp", "¥": "cny", "元": "cny", "₩": "krw", "원": "krw", "₹": "inr",
          "zł": "pln"}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, sorted(_SIGNS, key=len, reverse=True))))

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sided:
    """What a title states, and what the whole item does, title included."""

    title: frozenset[str]
    everywhere: frozenset[str]


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What an item states.

    Attributes:
        identifiers: what names the product all over the world.
        codes: of its model.
        measures: of its title by dimension.
        all_measures: of title, attributes and description by dimension.
        numbers: as written, of those that no unit stands on without a blank.
        words: of the title.
        colours: of title and attributes, or of the description where these name none; so are the next three.
        sizes: of clothes.
        audience: for whom it is.
        pack_counts: how many pieces.
        brand: folded, empty where there is none.
        price: a number and its currency, empty where that is not told; None without.
        attributes: key -> folded values.
    """

    identifiers: frozenset[str]
    codes: ItemCodes
    measures: Mapping[str, tuple[Measure, ...]]
    all_measures: Mapping[str, tuple[Measure, ...]]
    numbers: Sided
    words: frozenset[str]
    colours: frozenset[str]
    sizes: frozenset[str]
    audience: frozenset[str]
    pack_counts: frozenset[int]
    brand: str
    price: tuple[float, str] | None
    attributes: Mapping[str, frozenset[str]]

    @property
    def is_empty(self) -> bool:
        """Whether the item states nothing at all; a word of the description alone is no statement."""
        stated = (self.identifiers, self.codes.everywhere, self.all_measures, self.numbers.everywhere, self.words)
        further = (self.colours, self.sizes, self.audience, self.pack_counts, self.brand, self.price, self.attributes)
        return not any(map(bool, (*stated, *further)))


def item_facts(item: Item) -> ItemFacts:
    """What an item states."""
    title, description = folded(item.title), folded(item.description)
    attributes: dict[str, frozenset[str]] = {}
    for name, values in item.attributes.items():
        key, short = attribute_key(name), {folded(value) for value in values if len(value) <= LONGEST_VALUE}
        attributes[key] = attributes.get(key, frozenset()) | short  # "Size" and "size:" are one
    stated = " ; ".join((title, *(f"{key} {value}" for key, values in attributes.items() for value in sorted(values))))
    whole = f"{stated} ; {description}"

    def first(find: Callable[[str], frozenset[Found]]) -> frozenset[Found]:
        return find(stated) or find(description)

    return ItemFacts(
        identifiers(item),
        item_codes(item),
        _by_dimension(title),
        _by_dimension(whole),
        Sided(_numbers(title), _numbers(whole)),
        frozenset(distinct_words(title)),
        first(colours),
        first(sizes),
        first(audience),
        first(pack_counts),
        folded(item.brand).strip(" .,"),
        price_of(item.price, " ".join(item.attributes.get("currency", ()))),
        {key: told for key, values in attributes.items() if (told := values - {""})},
    )


def price_of(written: str, currency: str = "") -> tuple[float, str] | None:
    """A price as a number with its currency, which is empty where none is told; None where it is no price.

    Args:
        written: ``$1,288.99``, ``1.288,99 €``, ``1 288 zł``, ``1.5만원``.
        currency: what the item says of it elsewhere; it counts more than a sign that several currencies have.
    """
    text = folded(written)
    found, named = _PRICE.search(text), _currency(text)
    if found is None or not (number := _amount(_BETWEEN.sub("", found["number"]), euros=named == "eur")):
        return None
    return number * (10_000 if found["myriad"] else 1), _currency(folded(currency)) or named


def _currency(text: str) -> str:
    if code := _CODE.search(text):
        return _SAME_CODE.get(code[0], code[0])
    sign = _SIGN.search(text)
    return _SIGNS[sign[0]] if sign else ""


def _amount(written: str, *, euros: bool) -> float:
    """Digits with points and commas as a number: the last of these separates thousands, or begins a part of one.

    One point before three digits separates thousands where a price is written in ``euros``.
    """
    last = max(written.rfind("."), written.rfind(","))
    whole, mark, part = written[: max(last, 0)], written[last], written[last + 1 :]
    if last < 0:
        return float(written)
    mixed = len({".", ","} & set(written)) == 2
    if len(part) == 3 and whole != "0" and not mixed and (mark == "," or mark in whole or euros):
        whole, part = whole + part, ""
    return float(f"{whole.replace('.', '').replace(',', '')}.{part or 0}")


def _by_dimension(text: str) -> dict[str, tuple[Measure, ...]]:
    found: dict[str, list[Measure]] = {}
    for measure in measures(text):
        found.setdefault(measure.dimension, []).append(measure)
    return {dimension: tuple(several) for dimension, several in found.items()}


def _numbers(text: str) -> frozenset[str]:
    return frozenset(_BARE_NUMBER.findall(text))
