"""How common an attribute is among the items of a category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key

log = structlog.get_logger(__name__)

# Statistics stand in the model's card. A key that one item of a category has orders nothing, and most keys are such.
MIN_COUNT = 2


@dataclass(frozen=True)
class CategoryStatistics:
    """Of each category and attribute key, how many items have it.

    Fit them on training items only: what they know of others would not be known when new items come. Keys that fewer
    than ``MIN_COUNT`` items have are dropped at once, so that statistics read from a card order as the fitted ones did.
    """

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def fit(cls, items: Iterable[Item]) -> CategoryStatistics:
        """Count keys, as ``attribute_key`` compares them; an item counts once, whatever the number of values."""
        counts: dict[str, Counter[str]] = {}
        for item in items:
            counts.setdefault(item.category, Counter()).update({attribute_key(key) for key in item.attributes})
        return cls(
            {
                name: kept
                for name in sorted(counts)
                if (kept := {key: counts[name][key] for key in sorted(counts[name]) if counts[name][key] >= MIN_COUNT})
            }
        )

    def count(self, category: str, key: str) -> int:
        """Training items of ``category`` that have ``key``, as ``attribute_key`` gives it; 0 below ``MIN_COUNT``."""
        return self.counts.get(category, {}).get(key, 0)

    def to_json(self) -> dict[str, Any]:
        """category -> key -> count, sorted."""
        return {name: dict(keys) for name, keys in self.counts.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CategoryStatistics:
        """What :meth:`to_json` gave. Keys of a card that tells capitals apart are put together.

        Raises:
            UserError: it is something else.
        """
        counts: dict[str, Counter[str]] = {}
        for name, keys in values.items():
            if not isinstance(keys, Mapping) or not all(type(count) is int for count in keys.values()):
                raise UserError(f"The statistics of category {name!r} are no counts by key: restore the model's card.")
            counts[name] = Counter()
            for key, count in keys.items():
                counts[name][attribute_key(key)] += count
        if counts != values:
            log.warning("card_counts_attribute_keys_by_spelling", mend="train the model again for exact counts")
        return cls({name: dict(keys) for name, keys in counts.items()})
