"""Learning with two towers: every item of a step is encoded once, and pairs are made of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.matching.families._network import Batch, ItemNetwork
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.losses import LossOptions, VectorLoss
from shopvision.matching.fitting.inputs import ItemInputs
from shopvision.matching.fitting.known_products import connected_products
from shopvision.matching.fitting.learner import EVALUATED_AT_ONCE, MatcherLearner, TermSums
from shopvision.matching.fitting.sampling import Step
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.precision import MixedPrecision

PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class ItemShare:
    """One process's share of a step: n pairs of m items.

    Attributes:
        items: the items.
        left: (n,) int64 positions among them.
        right: (n,) int64.
        groups: (n,) and (n,) int64, which product the left and right items are known to be.
        labels: (n,) float32.
        teacher: (n,) float32, see ``Inputs.teacher_of``.
        total: the pairs of all processes.
    """

    items: Batch
    left: Tensor
    right: Tensor
    groups: tuple[Tensor, Tensor]
    labels: Tensor
    teacher: Tensor | None
    total: int


class TwoTowerLearner(MatcherLearner[ItemInputs, ItemShare]):
    """See ``MatcherLearner``."""

    network: ItemNetwork

    def __init__(
        self,
        *arguments: Any,
        axes: Axes,
        loss: VectorLoss,
        loss_options: LossOptions,
        symmetric: bool,
        **options: Any,
    ) -> None:
        """See ``MatcherLearner``.

        Args:
            arguments: as there.
            axes: of the model.
            loss: of item vectors.
            loss_options: margin or scale.
            symmetric: whether scores are means over both orders.
            options: as there.
        """
        super().__init__(*arguments, **options)
        self._axes, self._loss, self._loss_options, self._symmetric = axes, loss, loss_options, symmetric
        train = self.train
        same = train.labels == 1
        self._groups = connected_products(len(train.items), train.left[same], train.right[same])

    def _share(self, own: Step, total: int, generator: np.random.Generator) -> ItemShare:
        train = self.train
        left, right = train.sides(own.rows, own.swapped)
        items, positions = np.unique(np.stack([left, right]), return_inverse=True)
        first, second = torch.from_numpy(positions.reshape(2, -1))
        groups = (torch.from_numpy(self._groups[left]), torch.from_numpy(self._groups[right]))
        labels, teacher = train.labels_of(own.rows), train.teacher_of(own.rows)
        return ItemShare(train.batch(items, generator), first, second, groups, labels, teacher, total)

    def gradients(self, batch: ItemShare, precision: MixedPrecision) -> dict[str, Tensor]:
        """See ``MatcherLearner``."""
        device = self.process.device
        left, right, labels = (tensor.to(device) for tensor in (batch.left, batch.right, batch.labels))
        groups = (batch.groups[0].to(device), batch.groups[1].to(device))
        cache = GradientCache(precision.autocast)
        parts = [batch.items.rows(rows) for rows in micro_batches(len(batch.items), self.config.micro_batch)]
        sums = TermSums(device)

        def embed(part: Batch) -> tuple[Tensor, Tensor | None]:
            vectors, terms = self.network.training_outputs(part.to(device))
            loss = None
            for name, term in terms.items():
                value = term.value * (len(part) / len(batch.items))
                loss = term.weight * value if loss is None else loss + term.weight * value
                if torch.is_grad_enabled():  # the first of two passes is for the vectors alone
                    sums.add(f"loss_{name}", value)
                    sums.add("loss", term.weight * value)
            return vectors, None if loss is None else precision.scale(loss)

        vectors = cache.embed_with_loss(embed, parts)
        u, v = vectors[left], vectors[right]

        def mean(chosen: Tensor, groups: tuple[Tensor, Tensor] | None = None) -> Tensor:
            head, options = self.network.head, self._loss_options
            return self._loss.compute(
                self._axes, head, u[chosen], v[chosen], labels[chosen], groups=groups, options=options
            )

        if self._loss.in_batch:
            loss = mean(torch.ones_like(labels, dtype=torch.bool), groups)
            cache.backward(precision.scale(loss))
        else:
            summed = self._summed(mean, labels)
            if batch.teacher is not None:
                summed = self._with_teacher(summed, self.network.head(u, v), batch.teacher.to(device))
            cache.backward(precision.scale(summed * (self.process.world / batch.total)))
            loss = summed.detach() / len(labels)
        if sums.means(1):
            sums.add("loss_pairs", loss)
        sums.add("loss", loss)
        return sums.means(1)

    @torch.no_grad()
    def logits_of(self, inputs: ItemInputs) -> NDArray[np.float64]:
        """See ``MatcherLearner``."""
        network, device = self.network.eval(), self.process.device
        by_length = np.argsort(inputs.item_lengths(), kind="stable")

        def load(rows: slice) -> Batch:
            return inputs.batch(by_length[rows], None)

        def encode(batch: Batch) -> Tensor:
            vectors: Tensor = network.encode(batch.to(device))
            return vectors

        at_once = self.config.micro_batch or EVALUATED_AT_ONCE
        vectors = self.rows_of(len(inputs.items), network.dimension, load, encode, at_once=at_once)
        places = torch.from_numpy(np.argsort(by_length)).to(device)  # where each item's vector lies
        left, right = (places[torch.from_numpy(side).to(device)] for side in (inputs.left, inputs.right))
        result = torch.empty(len(inputs), device=device)
        for part in micro_batches(len(inputs), PAIRS_AT_ONCE):
            u, v = vectors[left[part]], vectors[right[part]]
            logits = network.pair_logits(u, v)
            result[part] = (logits + network.pair_logits(v, u)) / 2 if self._symmetric else logits
        return result.cpu().double().numpy()
