"""What the statements of two items say about each other, as numbers that a pair model reads beside its encoder.

Every number is between 0 and 1, the same in both orders of a pair, and 0 where an item states nothing: what is not
known counts neither way. ``agree`` and ``disagree`` are numbers of their own, because two items may agree in one
measure and differ in the next. Counts saturate: one equal measure is 1/2, two are 3/4. A title is compared with all
that the other item states, because what one seller writes into the title stands in the other's description; and a
statement is against another only where that item states something else in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.items.facts.item_facts import ItemFacts

Weights = Mapping[str, float]

FEATURES = (
    "identifier agrees", "identifier disagrees",
    "code agrees", "code disagrees", "codes shared", "code is alike",
    "measures agree", "measures disagree", "measures shared",
    "numbers agree", "numbers disagree", "numbers shared",
    "words agree", "words disagree", "words shared", "all words shared",
    "brand agrees", "brand disagrees",
    "colours agree", "colours disagree",
    "size agrees", "size disagrees",
    "audience agrees", "audience disagrees",
    "pack agrees", "pack disagrees",
    "price agrees", "price disagrees",
    "attributes agree", "attributes disagree",
)  # fmt: skip

_NEAR, _FAR = math.log(1.5), math.log(4)


def agreement_features(left: ItemFacts, right: ItemFacts, weights: Weights) -> NDArray[np.float32]:
    """(features,) in the order of ``FEATURES``.

    Args:
        left: of one item.
        right: of the other.
        weights: of words, numbers and codes, see ``TermWeights``; what has none weighs 1.
    """
    values = [
        *_either(left.identifiers, right.identifiers),
        *_terms(left.codes.title, right.codes.title, left.codes.everywhere, right.codes.everywhere, weights),
        _likeness(left.codes.title, right.codes.title),
        *_measures(left, right),
        *_terms(left.numbers.title, right.numbers.title, left.numbers.everywhere, right.numbers.everywhere, weights),
        *_words(left.words, right.words, weights),
        *_brands(left, right),
        *_sets(left.colours, right.colours),
        *_sizes(left.sizes, right.sizes),
        *_sets(left.audience, right.audience),
        *_sets(left.pack_counts, right.pack_counts),
        *_prices(left, right),
        *_attributes(left, right),
    ]
    return np.array(values, np.float32)


def _either(left: Set[Any], right: Set[Any]) -> tuple[float, float]:
    """Something is shared; both have something, and nothing is."""
    if not left or not right:
        return 0.0, 0.0
    return (1.0, 0.0) if left & right else (0.0, 1.0)


def _sets(left: Set[Any], right: Set[Any]) -> tuple[float, float]:
    """Shared, as a share of all; and whether each has what the other lacks."""
    if not left or not right:
        return 0.0, 0.0
    both = len(left & right)
    return both / len(left | right), float(both < min(len(left), len(right)))


def _sizes(left: Set[str], right: Set[str]) -> tuple[float, float]:
    """As ``_sets``, but ``42`` is ``eu 42``, and ``us 9`` is not against ``eu 42``, which is another system."""
    if not left or not right:
        return 0.0, 0.0
    alone, alone_right = _unmatched(left, right), _unmatched(right, left)
    both = min(len(left) - len(alone), len(right) - len(alone_right))
    told, told_right = _systems(left), _systems(right)
    against = _systems(alone) & told_right and _systems(alone_right) & told
    return both / (len(left) + len(right) - both), float(bool(against))


def _unmatched(sizes: Set[str], others: Set[str]) -> set[str]:
    """Those that the others do not have in the same system, or on one of the sides in none."""
    numbers = {size.rpartition(" ")[2] for size in others}
    return {size for size in sizes if not ({size, size.rpartition(" ")[2]} & others or size in numbers)}


def _systems(sizes: Set[str]) -> set[str]:
    return {size.rpartition(" ")[0] for size in sizes}


def _terms(
    left: Set[str], right: Set[str], all_left: Set[str], all_right: Set[str], weights: Weights
) -> tuple[float, float, float]:
    """The weightiest that is shared; of what each lacks of the other, the less weighty; and the share of the shared."""
    if not all_left or not all_right:
        return 0.0, 0.0, 0.0
    shared = (left & all_right) | (right & all_left)
    weight = weights.get
    missing = [[weight(term, 1.0) for term in side] for side in (left - all_right, right - all_left)]
    common = [weight(term, 1.0) for term in shared]
    # Exact sums, so that neither the order of a pair nor that of a set shows.
    total, rest = math.fsum(common), min(map(math.fsum, missing))
    against = min(max(side, default=0.0) for side in missing)
    return max(common, default=0.0), against, total / (total + rest) if total else 0.0


def _likeness(left: Set[str], right: Set[str]) -> float:
    """How much of a code of one title begins a code of the other: ``LMVM2085`` and ``LMVM2085SS``."""
    best = 0.0
    for one in left:
        for other in right:
            short, long = sorted((one, other), key=len)
            same = next((place for place, letter in enumerate(short) if letter != long[place]), len(short))
            best = max(best, same / len(long))
    return best


def _measures(left: ItemFacts, right: ItemFacts) -> tuple[float, float, float]:
    equal = other = 0
    for one, another in ((left, right), (right, left)):
        for dimension, found in one.measures.items():
            against = another.all_measures.get(dimension, ())
            same = sum(any(map(measure.equals, against)) for measure in found)
            equal += same
            other += len(found) - same if against else 0
    total = equal + other
    # Each is mostly seen from both sides.
    return 1 - 0.5 ** (equal / 2), 1 - 0.5 ** (other / 2), equal / total if total else 0.0


def _words(left: Set[str], right: Set[str], weights: Weights) -> tuple[float, float, float, float]:
    """As ``_terms``, and the share of the shared in all words of both."""
    common, against, share = _terms(left, right, left, right, weights)
    weight = weights.get
    total = math.fsum(weight(term, 1.0) for term in left | right)
    shared = math.fsum(weight(term, 1.0) for term in left & right)
    return common, against, share, shared / total if total else 0.0


def _brands(left: ItemFacts, right: ItemFacts) -> tuple[float, float]:
    """A brand that one item names alone may stand in the other's title; that it does not says nothing."""
    if left.brand and right.brand:
        return (1.0, 0.0) if left.brand == right.brand else (0.0, 1.0)
    named = left.brand or right.brand
    words = right.words if left.brand else left.words
    return float(bool(named) and words.issuperset(named.split())), 0.0


def _prices(left: ItemFacts, right: ItemFacts) -> tuple[float, float]:
    """1 for the same price to 0 for half as much again; and 0 for the same to 1 for four times as much."""
    if left.price is None or right.price is None:
        return 0.0, 0.0
    (one, currency), (other, another) = left.price, right.price
    if currency and another and currency != another:
        return 0.0, 0.0
    apart = abs(math.log(one / other))
    return max(0.0, 1 - apart / _NEAR), min(1.0, apart / _FAR)


def _attributes(left: ItemFacts, right: ItemFacts) -> tuple[float, float]:
    """Keys that both have, with a value in common and without."""
    common = left.attributes.keys() & right.attributes.keys()
    equal = sum(not left.attributes[key].isdisjoint(right.attributes[key]) for key in common)
    return 1 - 0.5**equal, 1 - 0.5 ** (len(common) - equal)
