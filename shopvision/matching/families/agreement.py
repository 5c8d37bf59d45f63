"""The family ``agreement``: what the statements of two items say about each other, and no encoder.

It learns in seconds, and a pair costs it some 50 microseconds once its items are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.items.facts.folding import folded
from shopvision.items.facts.item_facts import ItemFacts, item_facts
from shopvision.items.item import Item
from shopvision.items.word_overlap import distinct_words
from shopvision.matching.families._family import OneTowerFamily
from shopvision.matching.families._network import PairNetwork, PairReader, Rows
from shopvision.matching.families._parts import FamilyArguments, FamilyOptions, Parts, Start
from shopvision.matching.families.agreement_branch import AgreementBranch
from shopvision.matching.families.agreement_reading import AgreementReading, Comparing
from shopvision.matching.families.axes import Axes, LegalAxes
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions
from shopvision.models.card import ModelCard


class AgreementOptions(FamilyOptions):
    """Options."""

    family: str = "agreement"


class AgreementArguments(FamilyArguments):
    """Arguments.

    Attributes:
        agreement: how statements are compared.
    """

    agreement: AgreementReading


@dataclass(frozen=True, slots=True)
class Agreement:
    """n pairs: (n, k) float32 features."""

    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def to(self, device: torch.device) -> Agreement:
        """The batch on another device."""
        return Agreement(self.features.to(device))

    def rows(self, index: slice) -> Agreement:
        """Some of the pairs."""
        return Agreement(self.features[index])


class AgreementReader(PairReader[list[ItemFacts]]):
    """Pairs as agreement features."""

    def __init__(self, comparing: Comparing) -> None:
        self._comparing = comparing

    def read(self, items: Sequence[Item]) -> list[ItemFacts]:
        """See ``PairReader``."""
        return [item_facts(item) for item in items]

    def has_text(self, item: Item) -> bool:
        """See ``PairReader``: whether it states anything."""
        # Nearly all titles have a word, and items are looked at once more to be read.
        return bool(distinct_words(folded(item.title))) or not item_facts(item).is_empty

    def lengths(
        self,
        kept: list[ItemFacts],  # noqa: ARG002 - all pairs are alike
        left: Rows,
        right: Rows,  # noqa: ARG002 - as many as on the left
    ) -> NDArray[np.int64]:
        """See ``PairReader``; all are alike."""
        return np.ones(len(left), np.int64)

    def batch(
        self,
        kept: list[ItemFacts],
        left: Rows,
        right: Rows,
        pictures: Tensor | None,  # noqa: ARG002 - it reads none
    ) -> Agreement:
        """See ``PairReader``."""
        return Agreement(self.agreement(kept, left, right))

    def agreement(self, kept: list[ItemFacts], left: Rows, right: Rows) -> Tensor:
        """See ``PairReader``."""
        return self._comparing.features(kept, left, right)


class AgreementNetwork(PairNetwork):
    """The network.

    Attributes:
        agreement: features to log-odds.
    """

    def __init__(self, features: int, *, dropout: float) -> None:
        super().__init__()
        self.agreement = AgreementBranch(features, dropout=dropout)

    def forward(self, batch: Agreement) -> Tensor:
        """See ``PairNetwork``."""
        logits: Tensor = self.agreement(batch.features)
        return logits

    def learn_first(self, agreement: Tensor, labels: Tensor) -> None:
        """See ``PairNetwork``."""
        self.agreement.learn(agreement, labels)


@register
class AgreementFamily(OneTowerFamily[AgreementArguments, AgreementOptions]):
    """Reads what items state."""

    name = "agreement"
    reads_text = True
    unread_text_options: ClassVar = dict.fromkeys(TextOptions.model_fields, "statements are read from items, not texts")
    legal: ClassVar[LegalAxes] = {("pair", "none"): ("bce",)}
    arguments = AgreementArguments
    options = AgreementOptions

    def start(
        self,
        options: AgreementOptions,
        texts: TextOptions,  # noqa: ARG002 - no texts are built
        items: Sequence[Item],
    ) -> Start[AgreementArguments]:
        """See ``Family``."""
        arguments = AgreementArguments(**self.settled(options), agreement=AgreementReading.of_items(items))
        return Start(arguments=arguments, parts=Parts())

    def build(self, arguments: AgreementArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002 - see OneTowerFamily
        """See ``OneTowerFamily``."""
        return AgreementNetwork(len(arguments.agreement.features), dropout=arguments.dropout)

    def reader(self, arguments: AgreementArguments, parts: Parts) -> PairReader[Any]:  # noqa: ARG002 - as above
        """See ``OneTowerFamily``."""
        return AgreementReader(arguments.agreement.comparing())

    def order_matters(self, axes: Axes) -> bool:  # noqa: ARG002 - it has one head
        """See ``Family``: features are the same in both orders."""
        return False

    def load_parts(
        self,
        folder: Path,  # noqa: ARG002 - all that it needs stands in its arguments
        card: ModelCard,  # noqa: ARG002 - likewise
        arguments: AgreementArguments,  # noqa: ARG002 - which ``build`` and ``reader`` are given
    ) -> Parts:
        """See ``Family``: there is no tokenizer."""
        return Parts()
