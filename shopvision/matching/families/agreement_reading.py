"""How a one-tower reads what two items state about each other: what its card keeps of it, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from shopvision.errors import UserError
from shopvision.items.facts.agreement import FEATURES, agreement_features
from shopvision.items.facts.item_facts import ItemFacts, item_facts
from shopvision.items.facts.weights import TermWeights
from shopvision.items.item import Item
from shopvision.matching.families._network import Batch, PairReader, Rows


class AgreementReading(BaseModel):
    """What a model keeps of how it compares items; part of its arguments.

    Attributes:
        features: what it reads, some of ``shopvision.items.facts.agreement.FEATURES``.
        terms: weights of words, numbers and codes, see ``TermWeights.to_json``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[str, ...]
    terms: dict[str, Any]

    @classmethod
    def of_items(cls, items: Sequence[Item]) -> Self:
        """All features, with the weights of the training pairs' items."""
        return cls(features=FEATURES, terms=TermWeights.fit(map(item_facts, items)).to_json())

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := set(self.features) - set(FEATURES):
            raise UserError(f"The model reads {sorted(unknown)}, which items are not compared by: train it again.")
        return self

    def comparing(self) -> Comparing:
        """What compares items."""
        return Comparing(self)


class Comparing:
    """Compares items, each of which it reads once."""

    def __init__(self, reading: AgreementReading) -> None:
        self._weights = TermWeights.from_json(reading.terms).weights
        self._columns = [FEATURES.index(name) for name in reading.features]

    def features(self, facts: Sequence[ItemFacts], left: Rows, right: Rows) -> Tensor:
        """(n, k) float32 of n pairs of items at some positions of ``facts``."""
        values = np.zeros((len(left), len(FEATURES)), np.float32)
        for row, (one, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            values[row] = agreement_features(facts[one], facts[other], self._weights)
        return torch.from_numpy(values[:, self._columns])


@dataclass(frozen=True, slots=True)
class InformedItems:
    """Items as another reader keeps them, and what each states."""

    kept: Any
    facts: list[ItemFacts]


@dataclass(frozen=True, slots=True)
class InformedPairs:
    """n pairs.

    Attributes:
        pairs: as another reader gives them.
        agreement: (n, k) float32.
    """

    pairs: Batch
    agreement: Tensor

    def __len__(self) -> int:
        return len(self.agreement)

    def to(self, device: torch.device) -> InformedPairs:
        """The batch on another device."""
        return InformedPairs(self.pairs.to(device), self.agreement.to(device))

    def rows(self, index: slice) -> InformedPairs:
        """Some of the pairs."""
        return InformedPairs(self.pairs.rows(index), self.agreement[index])


class InformedPairReader(PairReader[InformedItems]):
    """Pairs as another reader gives them, and what their items say about each other."""

    def __init__(self, reader: PairReader[Any], comparing: Comparing) -> None:
        self._reader, self._comparing = reader, comparing

    def read(self, items: Sequence[Item]) -> InformedItems:
        """See ``PairReader``."""
        return InformedItems(self._reader.read(items), [item_facts(item) for item in items])

    def has_text(self, item: Item) -> bool:
        """See ``PairReader``."""
        return self._reader.has_text(item)

    def lengths(self, kept: InformedItems, left: Rows, right: Rows) -> NDArray[np.int64]:
        """See ``PairReader``."""
        return self._reader.lengths(kept.kept, left, right)

    def batch(self, kept: InformedItems, left: Rows, right: Rows, pictures: Tensor | None) -> InformedPairs:
        """See ``PairReader``."""
        pairs = self._reader.batch(kept.kept, left, right, pictures)
        return InformedPairs(pairs, self._comparing.features(kept.facts, left, right))

    def agreement(self, kept: InformedItems, left: Rows, right: Rows) -> Tensor:
        """See ``PairReader``."""
        return self._comparing.features(kept.facts, left, right)
