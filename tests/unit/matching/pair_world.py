"""Labelled pairs of made-up offers, and a scorer whose probabilities are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.scoring.predict import BaseScorer
from shopvision.models.card import Architecture, ModelCard

THRESHOLDS = {"same": 0.8, "different": 0.2, "decision": 0.5}
CATEGORIES = ("Shoes", "Watches", "Cables")


def card(thresholds: dict[str, float] = THRESHOLDS) -> ModelCard:
    return ModelCard(
        name="matcher", tag="1", kind="pair_scorer", architecture=Architecture(library="shopvision", name="given"),
        source="test", thresholds=thresholds, files={},
    )  # fmt: skip


@dataclass
class GivenScorer:
    """Gives the probability that ``answers`` holds for the two ids it is asked for; notes what it was given."""

    answers: dict[tuple[str, str], float]
    card: ModelCard = field(default_factory=card)
    needs_text: bool = True
    preprocessing: Preprocessing | None = None
    vector_dimension: int | None = None
    pictures: list[NDArray[np.uint8] | None] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None

    verdicts = BaseScorer.verdicts
    readable_pairs = BaseScorer.readable_pairs

    @property
    def needs_picture(self) -> bool:
        return self.preprocessing is not None

    def check(self, item: Item) -> None:
        if not (item.title if self.needs_text else item.picture):
            raise ItemError("no_text", "nothing to read")

    def item_vectors(
        self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8] | None] | None
    ) -> NDArray[np.float32]:
        self.pictures += pictures or []
        return np.array([[float(len(item.item_id))] for item in items], np.float32)

    def score(
        self, items: Sequence[Item], left: NDArray[Any], right: NDArray[Any], vectors: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self.vectors = vectors
        ids = zip(left.tolist(), right.tolist(), strict=True)
        return np.array([self.answers[items[a].item_id, items[b].item_id] for a, b in ids], np.float32)


def table_of(items: Sequence[Item], pairs: Sequence[tuple[int, int, int]]) -> PairTable:
    """A table of (left, right, label)."""
    left, right, labels = np.array(pairs).T
    return PairTable(tuple(items), left.astype(np.int32), right.astype(np.int32), labels.astype(np.int8))


def world(pairs: int, seed: int = 0) -> tuple[PairTable, GivenScorer]:
    """Pairs of two items of their own, three in ten the same item; the scorer is right nine times out of ten."""
    generator = np.random.default_rng(seed)
    items, rows, answers = [], [], {}
    for number in range(pairs):
        label = int(generator.random() < 0.3)
        category = CATEGORIES[number % 3]
        other = category if label or number % 7 else CATEGORIES[(number + 1) % 3]
        items += [
            Item(f"a{number}", f"brand {category} model {number}", category),
            Item(f"b{number}", f"{category} model {number if label else number + 1} by brand", other),
        ]
        rows.append((2 * number, 2 * number + 1, label))
        right = generator.random() < 0.9
        probability = generator.beta(8, 2) if label == right else generator.beta(2, 8)
        answers[f"a{number}", f"b{number}"] = float(np.float32(probability))
    return table_of(items, rows), GivenScorer(answers)
