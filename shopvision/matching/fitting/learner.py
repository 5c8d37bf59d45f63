"""Pair models as learners of ``shopvision.training.loop``: what learning with one tower and with two has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.errors import JobError
from shopvision.evaluation.pair_metrics import average_precision, best_f1_threshold, log_loss, roc_auc
from shopvision.matching.families.losses import distillation_loss
from shopvision.matching.fitting.config import TrainConfig
from shopvision.matching.fitting.distillation_config import DistillationConfig
from shopvision.matching.fitting.inputs import Inputs
from shopvision.matching.fitting.parameter_groups import parameter_groups
from shopvision.matching.fitting.sampling import Sampler, Step
from shopvision.training.distributed import Process
from shopvision.training.learner import NetworkLearner
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

EVALUATED_AT_ONCE = 64
# Log-odds nearer than this are one answer: half precision moves them by some hundredths.
ONE_ANSWER = 0.05

InputsT = TypeVar("InputsT", bound=Inputs)
Share = TypeVar("Share")


class MatcherLearner(NetworkLearner, ABC, Generic[InputsT, Share]):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        train: pairs of both labels.
        valid: pairs of both labels.
        config: rates, batches; its precision is settled, not ``auto``.
        distillation: how a teacher counts; None without one.
        process: this process.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        encoders: Sequence[str],
        config: TrainConfig,
        sampler: Sampler,
        *,
        frozen: Sequence[nn.Module],
        distillation: DistillationConfig | None,
        train: InputsT,
        valid: InputsT,
        process: Process,
    ) -> None:
        """Train on ``train``, whose pairs ``sampler`` draws, and validate on ``valid``.

        Args:
            network: what does not require gradients stays as it is.
            encoders: names of its pretrained submodules, which learn with a rate of their own.
            config: see above.
            sampler: draws steps.
            frozen: submodules that stay as they are, and in evaluation mode.
            distillation: how what a teacher said of ``train`` counts; None without one.
            train: see above.
            valid: see above.
            process: see above.
        """
        super().__init__(network, config, process, frozen=frozen)
        self.config, self.distillation, self.train, self.valid = config, distillation, train, valid
        self.steps_per_epoch = sampler.steps_per_epoch
        self._encoders, self._sampler = tuple(encoders), sampler

    # -- what is learnt -----------------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoders by layer, then what stands on them; biases and norms without weight decay."""
        config = self.config
        rates = {"lr": config.lr, "lr_head": config.lr_head, "layer_decay": config.layer_decay}
        return parameter_groups(self.network, self._encoders, betas=config.betas, **rates)

    # -- training -----------------------------------------------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[Share]:
        """This process's share of every step, made ahead in a thread."""
        self.begin_training()

        def load(numbered: tuple[int, Step]) -> Share:
            number, step = numbered
            process = self.process
            generator = np.random.default_rng([self.config.seed, epoch, number, process.rank])
            return self._share(step.shard(process.rank, process.world), len(step.rows), generator)

        return prefetch(load, enumerate(self._sampler.epoch(epoch), start=1))

    @abstractmethod
    def _share(self, own: Step, total: int, generator: np.random.Generator) -> Share:
        """This process's pairs of a step; ``total`` counts those of all processes."""

    @abstractmethod
    def gradients(self, batch: Share, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the mean loss of this process's pairs, and of further terms."""

    def _summed(self, mean: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """The sum of a loss over labelled pairs, those of the same product weighted; ``mean`` is of those of a mask."""
        weight = self.config.positive_weight
        parts = [(labels >= 0, 1.0)] if weight == 1 else [(labels > 0, weight), (labels == 0, 1.0)]
        total = torch.zeros((), device=labels.device)
        for chosen, factor in parts:
            if count := int(chosen.sum()):
                total = total + factor * count * mean(chosen)
        return total

    def _with_teacher(self, labelled: Tensor, logits: Tensor, teacher: Tensor) -> Tensor:
        """The sum of a loss over pairs of which a teacher has spoken.

        Args:
            labelled: the sum over those that have a label.
            logits: (n,) of all.
            teacher: (n,) its log-odds.
        """
        assert self.distillation is not None  # noqa: S101 - for the type checker: somebody was asked
        weight, temperature = self.distillation.weight, self.distillation.temperature
        return (1 - weight) * labelled + weight * len(teacher) * distillation_loss(logits, teacher, temperature)

    # -- validation ---------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Metrics of the validation pairs: F1 at its best threshold, and what needs no threshold.

        Raises:
            JobError: the network gives no finite scores.
        """
        return validation_metrics(self.validation_logits(), self.valid.labels)

    def validation_logits(self) -> NDArray[np.float64]:
        """(n,) log-odds of the validation pairs, as scoring gives them; the same in every process."""
        return self.logits_of(self.valid)

    @abstractmethod
    def logits_of(self, inputs: InputsT) -> NDArray[np.float64]:
        """(n,) log-odds of pairs, as scoring gives them; every process does a part, all get all."""


def validation_metrics(logits: NDArray[np.float64], labels: NDArray[np.int8]) -> dict[str, float]:
    """What ``MatcherLearner.evaluate`` gives, of (n,) log-odds and labels.

    Log-odds that are nearly one count as one: the order of what rounding left of it may be good on some dozens of pairs
    by luck, and is none on others.

    Raises:
        JobError: log-odds are not finite.
    """
    if not np.isfinite(logits).all():
        raise JobError(
            'The model gives validation pairs no finite scores: lower the learning rates, or set precision = "float32".'
        )
    if np.ptp(logits) < ONE_ANSWER:
        logits = np.full_like(logits, logits.mean())
    probabilities = 1.0 / (1.0 + np.exp(-logits))
    return {
        "f1": best_f1_threshold(logits, labels)[1],
        "average_precision": average_precision(logits, labels),
        "roc_auc": roc_auc(logits, labels),
        "loss": log_loss(probabilities, labels),
    }


class TermSums:
    """Losses of a step by name, summed over micro-batches without their graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Count ``value`` in."""
        self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value.detach()

    def means(self, count: int) -> dict[str, Tensor]:
        """The sums divided by ``count``."""
        return {name: value / count for name, value in self._sums.items()}
