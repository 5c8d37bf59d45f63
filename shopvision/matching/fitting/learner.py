"""Pair models of every family as a learner of ``shopvision.training.loop``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from shopvision.errors import UserError
from shopvision.evaluation.pair_metrics import average_precision, best_f1_threshold, log_loss, roc_auc
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.losses import LossOptions, binary_loss, two_tower_loss
from shopvision.matching.families.towers import OneTower, TwoTower
from shopvision.matching.fitting.config import TrainConfig
from shopvision.matching.fitting.inputs import ItemBatch, PairBatch, PairInputs
from shopvision.matching.fitting.sampling import Sampler, Step
from shopvision.training.distributed import Process
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

EVALUATED_AT_ONCE = 64
_LAYER = re.compile(r"\blayers?\.(\d+)\.")


@dataclass(frozen=True)
class TwoTowerBatch:
    """n pairs of m items for a model of two towers; an item of several pairs is encoded once.

    Attributes:
        items: the items.
        left: (n,) int64 positions among them.
        right: (n,) int64.
        groups: (n,) and (n,) int64, which product the left and right items are known to be.
        labels: (n,) float32.
    """

    items: ItemBatch
    left: Tensor
    right: Tensor
    groups: tuple[Tensor, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Share:
    """One process's share of a step: ``total`` counts the pairs of all processes."""

    batch: PairBatch | TwoTowerBatch
    total: int


class MatcherLearner:
    """Trains ``network``, which lies on the process's device.

    Attributes:
        network: a one-tower or two-tower model.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        network: OneTower | TwoTower,
        axes: Axes,
        config: TrainConfig,
        sampler: Sampler,
        *,
        train: PairInputs,
        valid: PairInputs,
        options: LossOptions,
        symmetric: bool,
        frozen_layers: int,
        frozen_image: bool,
        process: Process,
    ) -> None:
        """Train on ``train``, whose pairs ``sampler`` draws, and validate on ``valid``.

        Args:
            network: of the kind that ``axes`` say.
            axes: the four choices.
            config: rates, batches; its precision is settled, not ``auto``.
            sampler: draws steps.
            train: pairs of both labels.
            valid: pairs of both labels.
            options: of the loss.
            symmetric: whether scores are means over both orders.
            frozen_layers: first layers of the text encoder that stay as they are, with the embeddings below; 0: none.
            frozen_image: whether ``train`` and ``valid`` bring features of pictures instead of pixels.
            process: this process.

        Raises:
            UserError: the text encoder has no layers to freeze, or not as many.
        """
        self.network = network
        self.steps_per_epoch = sampler.steps_per_epoch
        self._axes, self._config, self._options, self._sampler = axes, config, options, sampler
        self._train, self._valid, self._symmetric, self._process = train, valid, symmetric, process
        self._groups = _products(train)
        if isinstance(network, TwoTower) and network.image is not None:
            network.image.requires_grad_(not frozen_image)
        self._frozen_image = frozen_image
        if network.text is not None:
            _freeze(network.text, frozen_layers)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoders by layer, then what stands on them; biases and norms without weight decay."""
        config = self._config
        encoders = [
            module for module in (self.network.text, getattr(self.network, "image", None)) if module is not None
        ]
        rates: dict[str, float] = {}
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        inside = set()
        for encoder in encoders:
            depths = _depths(encoder)
            for name, weight in encoder.named_parameters():
                inside.add(weight)
                below = max(depths.values()) - depths[name] if config.layer_decay < 1 else 0
                part = "encoder" if not below else f"encoder_{below}_below"
                rates[part] = config.lr * config.layer_decay**below
                groups.setdefault((part, weight.ndim > 1), []).append(weight)
        for weight in self.network.parameters():
            if weight not in inside:
                rates["head"] = config.lr_head
                groups.setdefault(("head", weight.ndim > 1), []).append(weight)
        return [
            {
                "name": part,
                "lr": rates[part],
                "params": trained,
                **({} if decays else {"weight_decay": 0.0}),
            }
            for (part, decays), weights in groups.items()
            if (trained := [weight for weight in weights if weight.requires_grad])
        ]

    def tensors(self) -> dict[str, Tensor]:
        """The network's tensors without those that stay as they are."""
        frozen = {name for name, weight in self.network.named_parameters() if not weight.requires_grad}
        if self._frozen_image:
            frozen |= {name for name, _ in self.network.named_buffers() if name.startswith("image.")}
        return {name: tensor for name, tensor in self.network.state_dict().items() if name not in frozen}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``tensors`` once gave."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    # -- training -----------------------------------------------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[Share]:
        """This process's share of every step, made ahead in a thread."""
        self.network.train()
        for module in self.network.modules():
            # An item's vector must not depend on the others of its batch.
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all of them
                module.eval()
        return prefetch(lambda numbered: self._load(epoch, *numbered), enumerate(self._sampler.epoch(epoch), start=1))

    def _load(self, epoch: int, number: int, step: Step) -> Share:
        process = self._process
        own = step.shard(process.rank, process.world)
        generator = np.random.default_rng([self._config.seed, epoch, number, process.rank])
        if isinstance(self.network, OneTower):
            return Share(self._train.pairs(own.rows, own.swapped, generator), len(step.rows))
        return Share(self._two_tower_batch(own, generator), len(step.rows))

    def _two_tower_batch(self, step: Step, generator: np.random.Generator) -> TwoTowerBatch:
        train = self._train
        left = np.where(step.swapped, train.right[step.rows], train.left[step.rows])
        right = np.where(step.swapped, train.left[step.rows], train.right[step.rows])
        items, positions = np.unique(np.stack([left, right]), return_inverse=True)
        first, second = torch.from_numpy(positions.reshape(2, -1))
        groups = (torch.from_numpy(self._groups[left]), torch.from_numpy(self._groups[right]))
        labels = torch.from_numpy(train.labels[step.rows].astype(np.float32))
        return TwoTowerBatch(train.single(items, generator), first, second, groups, labels)

    def gradients(self, batch: Share, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the mean loss of this process's pairs."""
        if isinstance(batch.batch, PairBatch):
            return self._one_tower_gradients(batch.batch, batch.total, precision)
        return self._two_tower_gradients(batch.batch, batch.total, precision)

    def _one_tower_gradients(self, batch: PairBatch, total: int, precision: MixedPrecision) -> dict[str, Tensor]:
        count, summed = len(batch.labels), torch.zeros((), device=self._process.device)
        for rows in micro_batches(count, self._config.micro_batch):
            part = batch.part(rows)
            with precision.autocast():
                logits = self._pair_logits(part)
            loss = self._summed(partial(_binary_loss_of, logits, part.labels), part.labels)
            torch.autograd.backward([precision.scale(loss * (self._process.world / total))])
            summed += loss.detach()
        return {"loss": summed / count}

    def _two_tower_gradients(self, batch: TwoTowerBatch, total: int, precision: MixedPrecision) -> dict[str, Tensor]:
        device = self._process.device
        left, right, labels = (tensor.to(device) for tensor in (batch.left, batch.right, batch.labels))
        groups = (batch.groups[0].to(device), batch.groups[1].to(device))
        cache = GradientCache(precision.autocast)
        parts = [batch.items.part(rows) for rows in micro_batches(len(batch.items), self._config.micro_batch)]
        vectors = cache.embed(self._vectors, parts)
        u, v = vectors[left], vectors[right]
        head = self.network.head
        if self._axes.loss == "mnr":
            loss = two_tower_loss(self._axes, head, u, v, labels, groups=groups, options=self._options)
            cache.backward(precision.scale(loss))
            return {"loss": loss.detach()}

        def mean(chosen: Tensor) -> Tensor:
            return two_tower_loss(self._axes, head, u[chosen], v[chosen], labels[chosen], options=self._options)

        summed = self._summed(mean, labels)
        cache.backward(precision.scale(summed * (self._process.world / total)))
        return {"loss": summed.detach() / len(labels)}

    def _summed(self, mean: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
        """The sum of a loss over pairs, those of the same product weighted; ``mean`` is of the pairs of a mask."""
        weight = self._config.positive_weight
        if weight == 1:
            return mean(torch.ones_like(labels, dtype=torch.bool)) * len(labels)
        total = torch.zeros((), device=labels.device)
        for chosen, factor in ((labels > 0, weight), (labels <= 0, 1.0)):
            if count := int(chosen.sum()):
                total = total + factor * count * mean(chosen)
        return total

    def _pair_logits(self, batch: PairBatch) -> Tensor:
        device = self._process.device
        features = None if batch.features is None else batch.features.to(device)
        slots = None if batch.slots is None else batch.slots.to(device)
        logits: Tensor = self.network(batch.tokens.to(device), features, slots)
        return logits

    def _vectors(self, items: ItemBatch) -> Tensor:
        network, device = self.network, self._process.device
        if not isinstance(network, TwoTower):
            raise TypeError("only two towers have item vectors")
        pictures = None if items.pictures is None else items.pictures.to(device)
        if pictures is not None and self._frozen_image:
            return network.from_features(pictures)
        return network.encode(None if items.tokens is None else items.tokens.to(device), pictures)

    # -- validation ---------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Metrics of the validation pairs: F1 at its best threshold, and what needs no threshold."""
        logits, labels = self.validation_logits(), self._valid.labels
        probabilities = 1.0 / (1.0 + np.exp(-logits))
        return {
            "f1": best_f1_threshold(logits, labels)[1],
            "average_precision": average_precision(logits, labels),
            "roc_auc": roc_auc(logits, labels),
            "loss": log_loss(probabilities, labels),
        }

    @torch.no_grad()
    def validation_logits(self) -> NDArray[np.float64]:
        """(n,) log-odds of the validation pairs, as scoring gives them; the same in every process."""
        self.network.eval()
        precision = MixedPrecision(self._config.precision, self._process.device)
        if isinstance(self.network, OneTower):
            return self._one_tower_logits(precision)
        return self._two_tower_logits(self.network, precision)

    def _one_tower_logits(self, precision: MixedPrecision) -> NDArray[np.float64]:
        valid = self._valid
        orders = (False, True) if self._symmetric else (False,)
        by_length = np.argsort(valid.pair_lengths(), kind="stable")

        def load(rows: slice) -> tuple[NDArray[np.int64], list[PairBatch]]:
            chosen = by_length[rows]
            return chosen, [valid.pairs(chosen, np.full(len(chosen), swapped), None) for swapped in orders]

        result = torch.zeros(len(valid), device=self._process.device)
        for rows, batches in prefetch(load, self._own_slices(len(valid))):
            with precision.autocast():
                logits = [self._pair_logits(batch).float() for batch in batches]
            result[torch.from_numpy(rows)] = torch.stack(logits).mean(0)
        return self._process.total(result).cpu().double().numpy()

    def _two_tower_logits(self, network: TwoTower, precision: MixedPrecision) -> NDArray[np.float64]:
        valid, device = self._valid, self._process.device
        by_length = np.argsort(valid.item_lengths(), kind="stable")

        def load(rows: slice) -> tuple[NDArray[np.int64], ItemBatch]:
            return by_length[rows], valid.single(by_length[rows], None)

        vectors = torch.zeros(len(valid.items), network.dimension, device=device)
        for rows, items in prefetch(load, self._own_slices(len(valid.items))):
            with precision.autocast():
                vectors[torch.from_numpy(rows)] = self._vectors(items).float()
        self._process.total(vectors)
        left, right = torch.from_numpy(valid.left).to(device), torch.from_numpy(valid.right).to(device)
        result = torch.empty(len(valid), device=device)
        for part in micro_batches(len(valid), 4096):
            logits = network.pair_logits(vectors[left[part]], vectors[right[part]])
            if self._symmetric:
                logits = (logits + network.pair_logits(vectors[right[part]], vectors[left[part]])) / 2
            result[part] = logits
        return result.cpu().double().numpy()

    def _own_slices(self, count: int) -> list[slice]:
        slices = micro_batches(count, self._config.micro_batch or EVALUATED_AT_ONCE)
        return slices[self._process.rank :: self._process.world]


def _binary_loss_of(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    return binary_loss(logits[chosen], labels[chosen])


def _products(inputs: PairInputs) -> NDArray[np.int64]:
    """(items,) number of the product that each item is known to be: items that same-pairs link have one number."""
    same = inputs.labels == 1
    count = len(inputs.items)
    links = coo_array((np.ones(same.sum()), (inputs.left[same], inputs.right[same])), shape=(count, count))
    products: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return products


def _depths(encoder: nn.Module) -> dict[str, int]:
    """Parameter name -> 0 for the embeddings, 1 for the first layer, ..., the last layer's number for what is above."""
    found = {name: _LAYER.search(name) for name, _ in encoder.named_parameters()}
    numbers = {name: int(match[1]) + 1 for name, match in found.items() if match}
    top = max(numbers.values(), default=0)
    return {name: numbers.get(name, 0 if "embed" in name else top) for name in found}


def _freeze(text: nn.Module, layers: int) -> None:
    if not layers:
        return
    depths = _depths(text)
    if max(depths.values()) < layers:
        raise UserError(f"model.frozen_layers = {layers}: the text encoder has {max(depths.values())} layers.")
    for name, weight in text.named_parameters():
        if depths[name] <= layers:
            weight.requires_grad = False
