"""How much a shared word, number or code tells: little where many items have it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from shopvision.errors import UserError
from shopvision.items.facts.item_facts import ItemFacts

MIN_COUNT = 3  # what fewer items have is rare, however few they are
MOST_TERMS = 20_000  # the most frequent ones; about 300 KB in a card


@dataclass(frozen=True)
class TermWeights:
    """``log(items / count) / log(items)`` of a term, after Robertson's inverse document frequency: 1 of a rare one.

    Attributes:
        items: how many were counted.
        counts: term -> how many of them have it.
    """

    items: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def fit(cls, facts: Iterable[ItemFacts]) -> TermWeights:
        """Count the terms of training items."""
        counts: Counter[str] = Counter()
        items = 0
        for one in facts:
            items += 1
            counts.update(one.words | one.numbers.everywhere | one.codes.everywhere)
        kept = [(term, count) for term, count in counts.most_common(MOST_TERMS) if count >= MIN_COUNT]
        return cls(items, dict(sorted(kept)))

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """Of the terms that were counted, between 0 and 1; every other weighs 1."""
        largest = math.log(max(self.items, 2))
        return {term: math.log(self.items / count) / largest for term, count in self.counts.items()}

    def to_json(self) -> dict[str, Any]:
        """For a card."""
        return {"items": self.items, "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TermWeights:
        """What ``to_json`` gave.

        Raises:
            UserError: it is something else.
        """
        items, counts = values.get("items"), values.get("counts")
        if (
            type(items) is not int
            or not isinstance(counts, Mapping)
            or not all(type(count) is int and 0 < count <= items for count in counts.values())
        ):
            raise UserError("The weights of terms are no counts of items: restore the model's card.")
        return cls(items, dict(counts))
