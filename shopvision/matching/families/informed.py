"""One-towers that are told what the statements of two items say about each other, beside what they read.

The option ``agreement`` of a family: a small network's log-odds are added to the encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from shopvision.items.item import Item
from shopvision.matching.families._network import PairNetwork, PairReader
from shopvision.matching.families._parts import FamilyArguments, FamilyOptions
from shopvision.matching.families.agreement_branch import AgreementBranch
from shopvision.matching.families.agreement_reading import AgreementReading, InformedPairReader


class InformedOptions(FamilyOptions):
    """Options.

    Attributes:
        agreement: add what the items' codes, measures, colours, prices and so on say about each other, see
            ``shopvision.items.facts``.
        hidden_agreement: share of a step's pairs that this is kept from in training.
    """

    agreement: bool = False
    hidden_agreement: float = Field(0.3, ge=0, lt=1)


class InformedArguments(FamilyArguments):
    """Arguments.

    Attributes:
        agreement: how statements are compared; None where they are not.
        hidden_agreement: as in the options.
    """

    agreement: AgreementReading | None = None
    hidden_agreement: float = Field(0.0, ge=0, lt=1)


class Informed(PairNetwork):
    """Put before the class of a network: to its log-odds those of the items' statements are added.

    In training the statements of a share of the pairs are kept from it, as if nothing were known. Otherwise the encoder
    would learn from the few pairs only that statements do not settle.

    Attributes:
        agreement: features to log-odds.
        hidden_share: of the pairs of a training step.
    """

    def __init__(self, *parts: Any, agreement: AgreementBranch, hidden_share: float, **options: Any) -> None:
        """Put together; all else as of the other class."""
        super().__init__(*parts, **options)
        self.agreement, self.hidden_share = agreement, hidden_share

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``InformedPairs`` around a batch of the other class."""
        agreement: Tensor = batch.agreement
        if self.training and self.hidden_share:
            shown = torch.rand(len(agreement), 1, device=agreement.device) >= self.hidden_share
            agreement = agreement * shown
        said: Tensor = super().forward(batch.pairs)  # type: ignore[safe-super] # of the class behind this one
        told: Tensor = self.agreement(agreement)
        return said + told

    def learn_first(self, agreement: Tensor, labels: Tensor) -> None:
        """See ``PairNetwork``."""
        self.agreement.learn(agreement, labels)


def informed_fields(options: InformedOptions, items: Sequence[Item]) -> dict[str, Any]:
    """The fields of ``InformedArguments`` that follow from the options and the training pairs' items."""
    if not options.agreement:
        return {}
    return {"agreement": AgreementReading.of_items(items), "hidden_agreement": options.hidden_agreement}


def build_network(
    plain: Callable[..., PairNetwork], informed: Callable[..., PairNetwork], arguments: InformedArguments,
    *parts: Any, **options: Any,
) -> PairNetwork:  # fmt: skip
    """The network of either class, of ``parts`` and ``options``, that the arguments ask for."""
    if arguments.agreement is None:
        return plain(*parts, **options)
    branch = AgreementBranch(len(arguments.agreement.features), dropout=arguments.dropout)
    return informed(*parts, agreement=branch, hidden_share=arguments.hidden_agreement, **options)


def build_reader(reader: PairReader[Any], arguments: InformedArguments) -> PairReader[Any]:
    """What gives such a network its batches, around what gives them to the class behind it."""
    return reader if arguments.agreement is None else InformedPairReader(reader, arguments.agreement.comparing())
