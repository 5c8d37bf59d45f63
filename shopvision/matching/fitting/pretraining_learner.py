"""Learning from items without labels, as a learner of ``shopvision.training.loop``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shopvision.errors import UserError
from shopvision.matching.families._network import ItemReader
from shopvision.matching.families._pretraining import Pretrains
from shopvision.matching.fitting.learner import TermSums
from shopvision.matching.fitting.parameter_groups import parameter_groups
from shopvision.matching.fitting.sampling import LengthSampler, Step
from shopvision.training.learner import NetworkLearner
from shopvision.training.loop import step_seed
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.matching.families._network import Batch, LossTerms, Rows
    from shopvision.matching.families._parts import FamilyOptions
    from shopvision.matching.families._pretraining import PretrainingNetwork
    from shopvision.matching.families.pair_model import Beginning
    from shopvision.matching.fitting.inputs import Pictures
    from shopvision.matching.fitting.pretraining_config import PretrainingConfig
    from shopvision.training.distributed import Process


@dataclass(frozen=True)
class PretrainingInputs:
    """Items to learn from.

    Attributes:
        reader: of items.
        kept: what it made of the items.
        pictures: of the items, in their order; None where the model reads none.
        train: rows to learn from.
        valid: rows that are held out.
    """

    reader: ItemReader[Any]
    kept: Any
    pictures: Pictures | None
    train: Rows
    valid: Rows

    def batch(self, rows: Rows, generator: np.random.Generator | None) -> Batch:
        """Items for the network; with a generator those of training."""
        pictures = None if self.pictures is None else self.pictures.take(rows, generator)
        batch: Batch = self.reader.batch(self.kept, rows, pictures)
        return batch


def read_inputs(
    beginning: Beginning, items: Sequence[Item], pictures: Pictures | None, config: PretrainingConfig
) -> PretrainingInputs:
    """The items, with some held out, the same ones in every run.

    Raises:
        UserError: too few items.
    """
    model = beginning.model
    if not isinstance(model.family, Pretrains):
        raise TypeError(f"{model.family.name} does not learn from items alone")
    reader = model.family.item_reader(model.arguments, model.parts)
    order = np.random.default_rng(config.seed).permutation(len(items))
    held_out = round(config.valid * len(items))
    if held_out < 2 or len(items) - held_out < config.batch_size:
        raise UserError(
            f"[pretraining] has {len(items):,} items, of which {config.valid:g} are held out, for batches of "
            f"{config.batch_size}: give more items with pretraining.items, lower batch_size, or leave the section out."
        )
    valid, train = np.sort(order[:held_out]), np.sort(order[held_out:])
    return PretrainingInputs(reader, reader.read(items), pictures, train, valid)


class PretrainingLearner(NetworkLearner):
    """Trains the network of a model through ``PretrainingNetwork``; both lie on the process's device.

    Attributes:
        network: the questions, with the model's network inside.
        steps_per_epoch: batches of an epoch.
    """

    network: PretrainingNetwork

    def __init__(
        self,
        beginning: Beginning,
        options: FamilyOptions,
        config: PretrainingConfig,
        inputs: PretrainingInputs,
        process: Process,
    ) -> None:
        """Train on ``inputs``; ``config`` has its precision settled.

        Raises:
            UserError: the model cannot learn so, or the processes cannot share the steps.
        """
        model = beginning.model
        if not isinstance(model.family, Pretrains):
            raise TypeError(f"{model.family.name} does not learn from items alone")
        frozen = model.family.freeze(model.network, options)
        torch.manual_seed(step_seed(config.seed, 0))
        questions = model.family.pretraining(model.network, model.arguments, model.parts, inputs.kept)
        super().__init__(questions.to(process.device), config, process, frozen=frozen)
        self.config, self.inputs = config, inputs
        self._encoders = [f"network.{name}" for name in beginning.start.weights]
        self._untouched = [
            weight
            for name in questions.untouched
            if (part := getattr(model.network, name, None)) is not None
            for weight in part.parameters()
        ]
        for weight in self._untouched:
            weight.requires_grad = False
        self._sampler = LengthSampler(
            inputs.reader.lengths(inputs.kept)[inputs.train],
            batch_size=config.batch_size,
            world=process.world,
            seed=config.seed,
            swap=False,
        )
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def finish(self) -> None:
        """Let what no question reached learn again, from pairs."""
        for weight in self._untouched:
            weight.requires_grad = True
        self.network.zero_grad(set_to_none=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See ``parameter_groups.parameter_groups``."""
        return parameter_groups(self.network, self._encoders, lr=self.config.lr, lr_head=self.config.lr_head)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This process's share of every step, made ahead in a thread."""
        self.begin_training()

        def load(numbered: tuple[int, Step]) -> Batch:
            number, step = numbered
            process = self.process
            generator = np.random.default_rng([self.config.seed, epoch, number, process.rank])
            rows = step.shard(process.rank, process.world).rows
            return self.inputs.batch(self.inputs.train[rows], generator)

        return prefetch(load, enumerate(self._sampler.epoch(epoch), start=1))

    def gradients(self, batch: Batch, precision: MixedPrecision) -> dict[str, Tensor]:
        """The mean of the processes' gradients is that of the mean of their losses."""
        with precision.autocast():
            terms = self.network.losses(batch.to(self.process.device))
        loss, metrics = _summed(terms)
        torch.autograd.backward([precision.scale(loss)])
        if self.process.world > 1:  # a process may lack the items that some weights are for
            for weight in self.network.parameters():
                if weight.requires_grad and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
        return metrics

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses of held-out items, by name and together; what is drawn of them is the same every time."""
        self.network.eval()
        process, config = self.process, self.config
        precision = MixedPrecision(config.precision, process.device)
        lengths = self.inputs.reader.lengths(self.inputs.kept)[self.inputs.valid]
        by_length = self.inputs.valid[np.argsort(lengths, kind="stable")]
        parts = np.array_split(by_length, max(1, len(by_length) // config.batch_size))
        sums = TermSums(process.device)
        for number, rows in enumerate(parts):
            torch.manual_seed(step_seed(config.seed, 0, number))
            with precision.autocast():
                terms = self.network.losses(self.inputs.batch(rows, None).to(process.device))
            for name, value in _summed(terms)[1].items():
                sums.add(name, value * len(rows))
        # Every process looks at all of these few; what one computes counts, so that all choose the same epoch.
        means = sums.means(len(by_length))
        return {name: float(process.total(value * process.is_main)) for name, value in means.items()}


def _summed(terms: LossTerms) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of losses, and all of them by name, detached."""
    loss = torch.stack([term.weight * term.value.float() for term in terms.values()]).sum()
    named = {f"loss_{name}": term.value.detach() for name, term in terms.items()}
    return loss, {"loss": loss.detach(), **named}
