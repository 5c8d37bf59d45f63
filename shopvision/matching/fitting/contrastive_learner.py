"""Learning which offers are one product, as a learner of ``shopvision.training.loop``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.errors import UserError
from shopvision.evaluation.pair_metrics import average_precision, best_f1_threshold, roc_auc
from shopvision.items.text_augmentation import augmented
from shopvision.matching.families._contrasting import Contrasts
from shopvision.matching.fitting.contrastive_steps import (
    MOST_OFFERS,
    Vectors,
    hard_products,
    shown_offers,
    steps_of_epoch,
)
from shopvision.matching.fitting.known_products import KnownProducts
from shopvision.matching.fitting.learner import EVALUATED_AT_ONCE
from shopvision.matching.fitting.parameter_groups import parameter_groups
from shopvision.training.contrastive import supervised_contrastive_loss
from shopvision.training.learner import NetworkLearner
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopvision.items.item import Item
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.families._network import Batch
    from shopvision.matching.families._parts import FamilyOptions
    from shopvision.matching.families.pair_model import Beginning
    from shopvision.matching.fitting.contrastive_config import ContrastiveConfig
    from shopvision.training.distributed import Process

LEAST_OFFERS = MOST_OFFERS + 1  # of a process in a step, so that none is without: one product has fewer


@dataclass(frozen=True)
class OfferShare:
    """One process's offers of a step.

    Attributes:
        batch: n offers.
        products: (n,) int64.
        repel: (n, n) bool.
    """

    batch: Batch
    products: Tensor
    repel: Tensor


class ContrastiveLearner(NetworkLearner):
    """Trains what makes vectors in the network of a model, which lies on the process's device.

    Attributes:
        learnt: names of these submodules.
        known: what labels say of the offers.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        beginning: Beginning,
        options: FamilyOptions,
        config: ContrastiveConfig,
        *,
        train: PairTable,
        valid: PairTable,
        process: Process,
    ) -> None:
        """Learn from what ``train`` says of offers; ``config`` has its precision settled.

        Raises:
            UserError: no two offers are one product, or sources are to tell offers apart and none is known.
        """
        model = beginning.model
        if not isinstance(model.family, Contrasts):
            raise TypeError(f"{model.family.name} makes no vectors of offers")
        self.known = KnownProducts.of(train, config.negatives)
        if self.known.count == len(self.known.product):
            raise UserError("[contrastive] learns from offers of one product, and no pair is labelled 1: leave it out.")
        if config.negatives == "sources" and (self.known.source < 0).all():
            raise UserError(
                'contrastive.negatives = "sources" goes by what each source lists, and no item has a source: fill the '
                'field source, or take "labelled" or "all".'
            )
        super().__init__(model.network, config, process, frozen=model.family.freeze(model.network, options))
        self.config, self._family = config, model.family
        self._reader = model.family.item_reader(model.arguments, model.parts)
        self._items, self._plain = train.used_items(), self._reader.read(train.used_items())
        self._valid = valid.compact()
        self._valid_plain = self._reader.read(self._valid.items)
        parts = dict(model.network.named_children())
        self.learnt = [name for name in parts if name in model.family.vector_parts]
        others = [part for name, part in parts.items() if name not in self.learnt]
        self._waiting = [weight for part in others for weight in part.parameters() if weight.requires_grad]
        for weight in self._waiting:
            weight.requires_grad = False
        self._encoders = tuple(beginning.start.weights)
        self._offers = shown_offers(self.known, twins=config.twins)
        shown = sum(min(len(own), MOST_OFFERS) for own in self._offers)
        self.steps_per_epoch = -(-shown // config.batch_size)
        if shown < self.steps_per_epoch * process.world * LEAST_OFFERS:
            raise UserError(
                f"{process.world} processes cannot share [contrastive] steps of {config.batch_size} offers: raise "
                "contrastive.batch_size, or start fewer processes."
            )

    def finish(self) -> None:
        """Let the rest learn again, from pairs."""
        for weight in self._waiting:
            weight.requires_grad = True
        self.network.zero_grad(set_to_none=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One rate for all: what the vectors are made by starts from what it knows, or next to nothing stands on it."""
        return parameter_groups(self.network, self._encoders, lr=self.config.lr, lr_head=self.config.lr)

    def batches(self, epoch: int) -> Iterator[OfferShare]:
        """This process's share of every step: what the model as it is now confuses comes together."""
        config, process = self.config, self.process
        hard: list[list[int]] = [[] for _ in self._offers]
        if config.hard_negatives:
            hard = hard_products(self.known, self._vectors(self._plain))
        generator = np.random.default_rng([config.seed, epoch])
        # Offers of a product stay together, so that they find each other in their process.
        parts = self.steps_per_epoch * process.world
        steps = steps_of_epoch(self._offers, hard, parts, config.hard_negatives, generator)
        count = len(self._items)
        twins = self._written_otherwise(generator) if config.twins else ()
        kept = self._reader.read([*self._written_otherwise(generator), *twins])
        self.begin_training()

        def load(rows: NDArray[np.int64]) -> OfferShare:
            again = np.ones(len(rows), np.bool_)
            again[np.unique(rows, return_index=True)[1]] = False
            batch = self._reader.batch(kept, np.where(again, rows + count, rows), None)
            repel = self.known.repel(rows[:, None], rows[None, :])
            return OfferShare(batch, torch.from_numpy(self.known.product[rows]), torch.from_numpy(repel))

        return prefetch(load, steps[process.rank :: process.world])

    def _written_otherwise(self, generator: np.random.Generator) -> Sequence[Item]:
        config = self.config
        if not config.augment:
            return self._items
        chosen = (generator.random(len(self._items)) < config.augment_share).tolist()
        return [
            augmented(item, config.augment, generator) if change else item
            for item, change in zip(self._items, chosen, strict=True)
        ]

    def gradients(self, batch: OfferShare, precision: MixedPrecision) -> dict[str, Tensor]:
        """The mean of the processes' gradients is that of the mean of their losses."""
        device = self.process.device
        with precision.autocast():
            vectors = self._family.item_vectors(self.network, batch.batch.to(device))
        loss = supervised_contrastive_loss(
            vectors, batch.products.to(device), batch.repel.to(device), self.config.temperature
        )
        torch.autograd.backward([precision.scale(loss)])
        return {"loss": loss.detach()}

    def evaluate(self) -> dict[str, float]:
        """Of the validation pairs, by the cosine of their items' vectors."""
        vectors, labels = self._vectors(self._valid_plain), self._valid.labels
        cosines = (vectors[self._valid.left] * vectors[self._valid.right]).sum(1).astype(np.float64)
        return {
            "f1": best_f1_threshold(cosines, labels)[1],
            "average_precision": average_precision(cosines, labels),
            "roc_auc": roc_auc(cosines, labels),
        }

    @torch.no_grad()
    def _vectors(self, kept: Any) -> Vectors:
        """(m, d) of unit length, of items as they are."""
        self.network.eval()
        lengths = self._reader.lengths(kept)
        by_length = np.argsort(lengths, kind="stable")

        def load(rows: slice) -> Batch:
            batch: Batch = self._reader.batch(kept, by_length[rows], None)
            return batch

        def encode(batch: Batch) -> Tensor:
            return self._family.item_vectors(self.network, batch.to(self.process.device))

        width = int(encode(load(slice(0, 1))).shape[1])
        found = self.rows_of(len(lengths), width, load, encode, at_once=EVALUATED_AT_ONCE).cpu().numpy()
        result = np.empty_like(found)
        result[by_length] = found
        return result
