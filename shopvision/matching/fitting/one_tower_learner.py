"""Learning with one tower: every pair is a pass of the network, and pairs have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.matching.families._network import Batch, PairNetwork
from shopvision.matching.families.losses import LogitLoss
from shopvision.matching.fitting.inputs import PairInputs
from shopvision.matching.fitting.learner import EVALUATED_AT_ONCE, MatcherLearner, TermSums
from shopvision.matching.fitting.sampling import Step
from shopvision.training.gradient_cache import micro_batches
from shopvision.training.precision import MixedPrecision


@dataclass(frozen=True)
class PairShare:
    """One process's share of a step.

    Attributes:
        batch: n pairs.
        labels: (n,) float32.
        teacher: (n,) float32, see ``Inputs.teacher_of``.
        total: the pairs of all processes.
    """

    batch: Batch
    labels: Tensor
    teacher: Tensor | None
    total: int


class OneTowerLearner(MatcherLearner[PairInputs, PairShare]):
    """See ``MatcherLearner``."""

    network: PairNetwork

    def __init__(self, *arguments: Any, loss: LogitLoss, symmetric: bool, **options: Any) -> None:
        """See ``MatcherLearner``.

        Args:
            arguments: as there.
            loss: of log-odds.
            symmetric: whether scores are means over both orders.
            options: as there.
        """
        super().__init__(*arguments, **options)
        self._loss, self._orders = loss, (False, True) if symmetric else (False,)

    def _share(self, own: Step, total: int, generator: np.random.Generator) -> PairShare:
        train, rows = self.train, own.rows
        return PairShare(
            train.batch(rows, own.swapped, generator), train.labels_of(rows), train.teacher_of(rows), total
        )

    def gradients(self, batch: PairShare, precision: MixedPrecision) -> dict[str, Tensor]:
        """See ``MatcherLearner``."""
        device, count = self.process.device, len(batch.labels)
        sums = TermSums(device)
        for rows in micro_batches(count, self.config.micro_batch):
            labels = batch.labels[rows].to(device)
            with precision.autocast():
                logits, terms = self.network.training_outputs(batch.batch.rows(rows).to(device))

            def mean(chosen: Tensor, logits: Tensor = logits, labels: Tensor = labels) -> Tensor:
                return self._loss(logits[chosen], labels[chosen])

            loss = self._summed(mean, labels)
            if batch.teacher is not None:
                loss = self._with_teacher(loss, logits, batch.teacher[rows].to(device))
            if terms:
                sums.add("loss_pairs", loss)
            for name, term in terms.items():
                sums.add(f"loss_{name}", term.value * len(labels))
                loss = loss + term.weight * term.value * len(labels)
            sums.add("loss", loss)
            torch.autograd.backward([precision.scale(loss * (self.process.world / batch.total))])
        return sums.means(count)

    def logits_of(self, inputs: PairInputs) -> NDArray[np.float64]:
        """See ``MatcherLearner``."""
        self.network.eval()
        device = self.process.device
        by_length = np.argsort(inputs.pair_lengths(), kind="stable")

        def load(rows: slice) -> list[Batch]:
            chosen = by_length[rows]
            return [inputs.batch(chosen, np.full(len(chosen), swapped), None) for swapped in self._orders]

        def score(batches: list[Batch]) -> Tensor:
            logits = [self.network(batch.to(device)).float() for batch in batches]
            return torch.stack(logits).mean(0).unsqueeze(1)

        at_once = self.config.micro_batch or EVALUATED_AT_ONCE
        found = self.rows_of(len(inputs), 1, load, score, at_once=at_once)[:, 0].cpu().double().numpy()
        result = np.empty_like(found)
        result[by_length] = found
        return result
