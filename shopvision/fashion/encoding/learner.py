"""Encoders with a projection as learners of ``shopvision.training.loop``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shopvision.evaluation.product_retrieval import Retrieved
from shopvision.fashion.encoding.losses import triplet_loss
from shopvision.fashion.encoding.searching import KS
from shopvision.training.contrastive import PairVectors, contrastive_loss
from shopvision.training.distributed import Process
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.pair_sampling import PairSampler
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.encoders.projected_network import ProjectedNetwork
    from shopvision.fashion.encoding.config import EncoderConfig
    from shopvision.fashion.encoding.inputs import ViewInputs
    from shopvision.fashion.encoding.searching import Search

EVALUATED_AT_ONCE = 128
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 1.0


@dataclass(frozen=True)
class TrainingPairs:
    """n pairs by the rows of their views.

    Attributes:
        anchors: (n,) rows of views.
        positives: (n,) rows of views; of a product with a single picture the anchor's.
        products: (n,) numbers.
        contents: (n,) of the positives, equal for pictures of equal bytes.
        categories: (n,) names.
    """

    anchors: NDArray[np.int64]
    positives: NDArray[np.int64]
    products: NDArray[np.int64]
    contents: NDArray[np.int64]
    categories: list[str]


@dataclass(frozen=True)
class PairBatch:
    """One process's share of a step: features (n, d) or pixels (n, H, W, 3), and two numbers of each pair."""

    anchors: Tensor
    positives: Tensor
    products: Tensor
    contents: Tensor


class Trained(nn.Module):
    """What training changes: the encoder, and the logarithm of the temperature."""

    def __init__(self, encoder: ProjectedNetwork, temperature: float, *, learn_temperature: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=learn_temperature)


class EncoderLearner(NetworkLearner):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        steps_per_epoch: batches of an epoch.
    """

    network: Trained

    def __init__(
        self,
        network: Trained,
        config: EncoderConfig,
        inputs: ViewInputs,
        *,
        train: TrainingPairs,
        valid: Search,
        process: Process,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        """Train on ``train`` and validate on ``valid``, whose views ``inputs`` gives; nothing in ``frozen`` learns."""
        super().__init__(network, config.train, process, frozen=frozen)
        self._config, self._inputs, self._train, self._valid = config, inputs, train, valid
        self._sampler = PairSampler(
            train.categories, config.train.batch_size, one_category=config.train.one_category, seed=config.train.seed
        )
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The image encoder, where it learns; the projection; the temperature, where it is learnt."""
        encoder, train = self.network.encoder, self._config.train
        groups: list[dict[str, Any]] = [
            {"name": "backbone", "lr": train.lr_backbone, "params": list(encoder.backbone.parameters())},
            {"name": "projection", "lr": train.lr, "params": list(encoder.projection.parameters())},
            {"name": "temperature", "lr": train.lr, "params": [self.network.log_temperature], "weight_decay": 0.0},
        ]
        for group in groups:
            group["params"] = [weight for weight in group["params"] if weight.requires_grad]
        return [group for group in groups if group["params"]]

    def batches(self, epoch: int) -> Iterator[PairBatch]:
        """This process's share of every step, loaded ahead in a thread."""
        self.begin_training()
        steps = enumerate(self._sampler.epoch(epoch), start=1)
        return prefetch(lambda numbered: self._load(epoch, *numbered), steps)

    def _load(self, epoch: int, number: int, pairs: NDArray[np.int64]) -> PairBatch:
        """What is drawn is drawn for the whole step, so that more processes see the same."""
        data, process = self._train, self.process
        generator = np.random.default_rng([self._config.train.seed, epoch, number])
        share = slice(process.rank, None, process.world)
        anchors, positives = self._inputs.pairs(data.anchors[pairs], data.positives[pairs], generator, share)
        own = pairs[share]
        return PairBatch(anchors, positives, torch.from_numpy(data.products[own]), torch.from_numpy(data.contents[own]))

    def gradients(self, batch: PairBatch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the loss and how many anchors find their product in the step."""
        train, device = self._config.train, self.process.device
        temperature = self.network.log_temperature
        with torch.no_grad():
            temperature.clamp_(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
        cache = GradientCache(precision.autocast)
        parts = micro_batches(len(batch.products), train.micro_batch)
        pairs = PairVectors(
            cache.embed(self.vectors, [batch.anchors[part] for part in parts]),
            cache.embed(self.vectors, [batch.positives[part] for part in parts]),
            batch.products.to(device),
            batch.contents.to(device),
        )
        if train.loss == "triplet":
            loss = triplet_loss(pairs, train.margin)
        else:
            loss = contrastive_loss(pairs, temperature.exp(), both_directions=train.both_directions)
        cache.backward(precision.scale(loss))
        metrics = {"loss": loss.detach(), "in_batch_recall_1": pairs.found().float().mean()}
        if train.learn_temperature:
            metrics["temperature"] = temperature.detach().exp()
        return metrics

    def vectors(self, inputs: Tensor) -> Tensor:
        """Features (n, d) or pixels (n, H, W, 3) uint8 -> (n, dimension) of unit length, on the device."""
        return functional.normalize(self.network.encoder.projection(self.features(inputs)).float(), dim=1)

    def evaluate(self) -> dict[str, float]:
        """How well the anchors of validation find their product in the gallery."""
        return means(self.found(self._valid))

    def found(self, search: Search) -> Retrieved:
        """How well the vectors of now answer a search; the same in every process."""
        self.network.eval()
        width = self.network.encoder.projection.out_features
        return search.retrieve(self._encoded(self._inputs.rows_of(search.views), self.vectors, width).cpu().numpy())

    def found_by_features(self, search: Search) -> Retrieved:
        """How well the features that the projection stands on answer it: before training, the frozen baseline."""
        self.network.eval()
        width = self.network.encoder.projection.in_features

        def encode(inputs: Tensor) -> Tensor:
            return functional.normalize(self.features(inputs).float(), dim=1)

        return search.retrieve(self._encoded(self._inputs.rows_of(search.views), encode, width).cpu().numpy())

    def features_of(self, rows: NDArray[np.int64]) -> Tensor:
        """(n, width) float32 of views as they are, not normalised; the same in every process."""
        self.network.eval()
        return self._encoded(rows, self.features, self.network.encoder.projection.in_features)

    def features(self, inputs: Tensor) -> Tensor:
        """What the projection stands on, (n, width), not normalised."""
        moved = inputs.to(self.process.device, non_blocking=True)
        made: Tensor = moved if moved.ndim == 2 else self.network.encoder.backbone(self._inputs.normalised(moved))
        return made

    def _encoded(self, rows: NDArray[np.int64], encode: Callable[[Tensor], Tensor], width: int) -> Tensor:
        """(len(rows), width) of views as they are."""
        return self.rows_of(
            len(rows), width, lambda part: self._inputs.plain(rows[part]), encode, at_once=EVALUATED_AT_ONCE
        )


def means(found: Retrieved) -> dict[str, float]:
    """Mean of each metric over the queries."""
    return {name: float(values.mean()) for name, values in found.columns(KS)[0].items()}
