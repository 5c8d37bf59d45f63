"""A knowledge graph's vectors as a learner of ``shopvision.training.loop``: sparse steps on few rows of large tables.

Letters in shapes: b right triples of a step, w wrong ones, u entities in them, h dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shopvision.graph.config import TrainConfig
from shopvision.graph.link_prediction import LinkTask
from shopvision.graph.losses import relation_distance, translation_losses, triple_distance
from shopvision.graph.negatives import Corruption
from shopvision.graph.vectors import GraphVectors
from shopvision.training.distributed import Process
from shopvision.training.learner import NetworkLearner
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GraphStep:
    """Triples of a step, the right ones first.

    Attributes:
        entities: (u,) int64, sorted, each once.
        heads: (b + w,) int64, places in ``entities``.
        relations: (b + w,) int64.
        tails: (b + w,) int64, places in ``entities``.
        right_of: (w,) int64, which right triple a wrong one belongs to.
        counts: (w,) float32, 0 for those that are no wrong ones, else 1.
    """

    entities: Tensor
    heads: Tensor
    relations: Tensor
    tails: Tensor
    right_of: Tensor
    counts: Tensor


class GraphLearner(NetworkLearner):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        task: what it is validated by.
        examples: triples of an epoch.
        steps_per_epoch: batches of an epoch.
    """

    network: GraphVectors

    def __init__(
        self,
        network: GraphVectors,
        config: TrainConfig,
        process: Process,
        *,
        triples: Ints,
        corruption: Corruption,
        task: LinkTask,
    ) -> None:
        """Train on ``triples`` (n, 3), beside those that ``corruption`` draws, and validate by ``task``."""
        super().__init__(network, config, process)
        self.config, self.task = config, task
        self._corruption, self._triples = corruption, triples
        self.examples = len(triples)
        self.steps_per_epoch = -(-len(triples) // config.batch_size)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Entities, which keep unit length, and the rest; for ``RowAdagrad``."""
        network, rate = self.network, self.config.lr
        return [
            {"name": "entities", "params": [network.entities], "lr": rate, "unit": True},
            {"name": "relations", "params": [network.relations, network.matrix], "lr": rate, "unit": False},
        ]

    def batches(self, epoch: int) -> Iterator[GraphStep]:
        """Every triple once, with wrong ones that are drawn anew; made ahead in a thread."""
        self.begin_training()
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self._triples))
        size = self.config.batch_size

        def load(number: int) -> GraphStep:
            generator = np.random.default_rng([self.config.seed, epoch, number + 1])
            return self.step_of(self._triples[order[number * size : (number + 1) * size]], generator)

        return prefetch(load, range(self.steps_per_epoch))

    def step_of(self, right: Ints, generator: np.random.Generator) -> GraphStep:
        """A step of these triples (b, 3)."""
        right_of = np.repeat(np.arange(len(right)), self.config.negatives)
        wrong, fine = self._corruption.draw(right[right_of], generator)
        both = np.concatenate([right, wrong])
        entities, places = np.unique(both[:, [0, 2]], return_inverse=True)
        places = places.reshape(-1, 2)
        arrays = (entities, places[:, 0], both[:, 1], places[:, 1], right_of, fine.astype(np.float32))
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return GraphStep(*tensors)

    def gradients(self, batch: GraphStep, precision: MixedPrecision) -> dict[str, Tensor]:
        """See ``Learner``: PKGM's margin loss, the mean over wrong triples.

        Only rows of entities that the step has are leaves of its graph, so that nothing as large as the table is made.
        """
        network, device = self.network, self.process.device
        seen = batch.entities.to(device)
        rows = network.entities.detach()[seen].requires_grad_()
        count = len(batch.heads) - len(batch.right_of)
        where = batch.heads.to(device)
        heads, tails = functional.embedding(where, rows), functional.embedding(batch.tails.to(device), rows)
        relations = functional.embedding(batch.relations.to(device), network.relations)
        distances = triple_distance(heads, relations, tails) + relation_distance(
            self._transferred(where, rows), relations
        )
        right, wrong = distances[:count][batch.right_of.to(device)], distances[count:]
        counts = batch.counts.to(device)
        losses = translation_losses(right, wrong, self.config.margin) * counts
        total = counts.sum().clamp(min=1.0)
        loss = losses.sum() / total
        dense = (network.relations, network.matrix)
        gradient, *gradients = torch.autograd.grad(precision.scale(loss), [rows, *dense])
        network.entities.grad = torch.sparse_coo_tensor(
            seen.unsqueeze(0), gradient, network.entities.shape, is_coalesced=True, check_invariants=False
        )
        for table, of_table in zip(dense, gradients, strict=True):
            table.grad = of_table
        violated = (losses.detach() > 0).sum() / total
        return {"loss": loss.detach(), "violated": violated}

    def _transferred(self, where: Tensor, rows: Tensor) -> Tensor:
        """``M h`` of each triple's head; multiplied once for each entity that is a head."""
        heads, places = torch.unique(where, return_inverse=True)
        return functional.embedding(places, self.network.transfer(functional.embedding(heads, rows)))

    def evaluate(self) -> dict[str, float]:
        """See ``Learner``: link prediction of held-out triples."""
        self.network.eval()
        return {name: one.value for name, one in self.task.ranks(self.network).measured(resamples=0).items()}
