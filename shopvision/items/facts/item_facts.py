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
from shopvision.items.facts.measures import Measure, measures, number_of
from shopvision.items.identifiers import identifiers
from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key
from shopvision.items.word_overlap import distinct_words

LONGEST_VALUE = 200  # characters of an attribute's value: longer ones are descriptions

_BARE_NUMBER = re.compile(r"(?<![\w.,])\d{1,5}(?:[.,]\d+)?(?![\w.,]?\w)")
_PRICE = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d{1,2})?")
_CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "cny", "￥": "cny", "元": "cny", "₩": "krw", "원": "krw"}
_CURRENCY = re.compile(rf"[{''.join(_CURRENCIES)}]|[a-z]{{3}}")

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
        numbers: without a unit, as written.
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


def item_facts(item: Item) -> ItemFacts:
    """What an item states."""
    title, description = folded(item.title), folded(item.description)
    attributes = {
        attribute_key(name): frozenset(folded(value) for value in values if len(value) <= LONGEST_VALUE)
        for name, values in item.attributes.items()
    }
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
        price_of(item.price),
        {key: values for key, values in attributes.items() if values},
    )


def price_of(written: str) -> tuple[float, str] | None:
    """A price as a number with its currency, which is empty where none is told; None where it is no price."""
    text = folded(written)
    found = _PRICE.search(text)
    if found is None or not (number := number_of(found[0])):
        return None
    currency = _CURRENCY.search(text)
    return number, "" if currency is None else _CURRENCIES.get(currency[0], currency[0])


def _by_dimension(text: str) -> dict[str, tuple[Measure, ...]]:
    found: dict[str, list[Measure]] = {}
    for measure in measures(text):
        found.setdefault(measure.dimension, []).append(measure)
    return {dimension: tuple(several) for dimension, several in found.items()}


def _numbers(text: str) -> frozenset[str]:
    return frozenset(_BARE_NUMBER.findall(text))
