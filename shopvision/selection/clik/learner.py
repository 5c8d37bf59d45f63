"""CLIK, and the methods it is compared with, as a learner of ``shopvision.training.loop``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.evaluate import evaluate_vectors
from shopvision.selection.clik.inputs import Inputs, Topics
from shopvision.selection.clik.losses import (
    image_ranking_loss,
    listwise_loss,
    pairwise_loss,
    pointwise_loss,
    shares_of_best,
    topic_matching_loss,
    total_loss,
    triplet_loss,
)
from shopvision.selection.clik.model import Clik
from shopvision.training.distributed import Process, gather_with_local_gradients
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.pixels import PixelsToInput
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.selection.clik.sampling import RankingSampler, Step

EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class ClikBatch:
    """One process's share of a step.

    Attributes:
        matching_topics: of m topics; None where the step has no matching part.
        matching_pictures: one for each.
        ranking_topics: of g groups; None where there are none.
        ranking_pictures: (g * k, ...), group by group.
        labels: (g, k) float32, sorted within each group, the best first.
    """

    matching_topics: Topics | None
    matching_pictures: Tensor | None
    ranking_topics: Topics | None
    ranking_pictures: Tensor | None
    labels: Tensor


class ClikLearner(NetworkLearner):
    """Trains ``clik``, which lies on the process's device.

    Attributes:
        clik: the network.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        clik: Clik,
        config: ClikConfig,
        sampler: RankingSampler,
        *,
        train: Inputs,
        valid: Inputs | None,
        preprocessing: Preprocessing,
        process: Process,
    ) -> None:
        """Train on ``train``, which ``sampler`` draws from, and validate on ``valid``."""
        frozen = (clik.txt_encoder.enc, clik.img_encoder.enc) if config.model.frozen else ()
        super().__init__(clik, config.train, process, frozen=frozen)
        self.clik = clik
        self.steps_per_epoch = sampler.steps_per_epoch
        self._config, self._sampler = config, sampler
        self._train, self._valid = train, valid
        self._to_input = PixelsToInput(preprocessing, process.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The text tower; the image tower with what makes queries."""
        weights = {"text": list(self.clik.txt_encoder.parameters())}
        texts = set(weights["text"])
        weights["image"] = [weight for weight in self.clik.parameters() if weight not in texts]
        return [
            {"name": name, "lr": rate, "params": [weight for weight in of_group if weight.requires_grad]}
            for (name, of_group), rate in zip(weights.items(), self._config.learning_rates, strict=True)
        ]

    def batches(self, epoch: int) -> Iterator[ClikBatch]:
        """This process's share of every step, loaded ahead in a thread."""
        self.begin_training()
        return prefetch(lambda numbered: self._load(epoch, *numbered), enumerate(self._sampler.epoch(epoch), start=1))

    def _load(self, epoch: int, number: int, step: Step) -> ClikBatch:
        process, seed = self.process, (self._config.train.seed, epoch, number)
        # Drawn for the whole step, so that more processes see the same crops.
        share, whole = slice(process.rank, None, process.world), np.random.default_rng(seed)
        matching_crops = whole.random((len(step.matching_products), 2))[share]
        ranking_crops = whole.random((*step.ranking_products.shape, 2))[share].reshape(-1, 2)
        generator = np.random.default_rng([*seed, process.rank])
        step = step.shard(process.rank, process.world)
        matching_topics = matching_pictures = ranking_topics = ranking_pictures = None
        if self._config.needs_matching:
            matching_topics = self._train.topics(
                step.matching_exhibitions, step.matching_products, step.augment, generator
            )
            matching_pictures = self._train.pictures(step.matching_products, matching_crops)
        if len(step.ranking_exhibitions):
            never = np.zeros(len(step.ranking_exhibitions), bool)
            ranking_topics = self._train.topics(step.ranking_exhibitions, step.ranking_products[:, 0], never, generator)
            ranking_pictures = self._train.pictures(step.ranking_products.ravel(), ranking_crops)
        labels = torch.from_numpy(np.asarray(step.ranking_labels, np.float32))
        return ClikBatch(matching_topics, matching_pictures, ranking_topics, ranking_pictures, labels)

    def gradients(self, batch: ClikBatch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the losses and the in-batch matching accuracy both ways."""
        cache = GradientCache(precision.autocast)
        world = self.process.world
        matching = ranking = torch.zeros((), device=self.process.device)
        metrics: dict[str, Tensor] = {}
        if batch.matching_topics is not None and batch.matching_pictures is not None:
            topics = gather_with_local_gradients(self._cached(cache, self._topic_vectors, batch.matching_topics))
            pictures = gather_with_local_gradients(self._cached(cache, self._picture_vectors, batch.matching_pictures))
            if self.clik.query != "topic":
                self.clik.replace_bank(pictures.detach())
            matching = topic_matching_loss(topics, pictures, self._config.train.temperature)
            metrics |= {"matching_loss": matching.detach(), **_accuracy(topics.detach(), pictures.detach())}
        if batch.ranking_topics is not None and batch.ranking_pictures is not None:
            topics = self._cached(cache, self._topic_vectors, batch.ranking_topics)
            pictures = self._cached(cache, self._picture_vectors, batch.ranking_pictures)
            pictures = pictures.view(*batch.labels.shape, -1)
            ranking = self._ranking_loss(topics, pictures, batch.labels.to(self.process.device))
            metrics["ranking_loss"] = ranking.detach()
            if self._config.train.method == "triplet":
                ranking = world * ranking  # a sum over groups, unlike the other losses
        total = total_loss(matching, ranking, weight=self._config.matching_weight, world_size=world)
        cache.backward(precision.scale(total))
        weights = {"matching_loss": self._config.matching_weight, "ranking_loss": 1.0}
        parts = [weight * metrics[name] for name, weight in weights.items() if name in metrics]
        return {"loss": torch.stack(parts).sum(), **metrics}

    def _ranking_loss(self, topics: Tensor, pictures: Tensor, labels: Tensor) -> Tensor:
        train = self._config.train
        if train.method == "triplet":
            return triplet_loss(topics, pictures)
        compatibility = self.clik.compatibility(topics, pictures)
        match train.method:
            case "pairwise":
                return pairwise_loss(compatibility)
            case "pointwise":
                return pointwise_loss(compatibility, labels, train.temperature)
            case _ if train.ranking_loss == "listwise":
                shares = shares_of_best(labels)
                return listwise_loss(compatibility, shares, train.temperature, train.label_temperature)
            case _:
                return image_ranking_loss(compatibility, train.temperature)

    def _topic_vectors(self, topics: Topics) -> Tensor:
        """Features or tokens of n topics -> (n, h) of unit length, on the device."""
        moved = topics.to(self.process.device)
        tower = self.clik.txt_encoder
        vectors: Tensor = tower.from_features(moved) if isinstance(moved, Tensor) else tower(moved)
        return vectors

    def _picture_vectors(self, pictures: Tensor) -> Tensor:
        """Features (n, d) or pixels (n, H, W, 3) uint8 -> (n, h) of unit length, on the device."""
        moved = pictures.to(self.process.device, non_blocking=True)
        tower = self.clik.img_encoder
        if moved.ndim == 2:
            return tower.from_features(moved)
        vectors: Tensor = tower(self._to_input(moved))
        return vectors

    def _cached(self, cache: GradientCache, encoder: Callable[[Any], Tensor], inputs: Topics | Tensor) -> Tensor:
        parts = micro_batches(len(inputs), self._config.train.micro_batch)
        rows = [inputs.rows(part) if isinstance(inputs, TokenBatch) else inputs[part] for part in parts]
        return cache.embed(encoder, rows)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Ranking metrics of the validation exhibitions, and matching accuracy with the best picture of each."""
        valid = self._valid
        if valid is None:
            return {}
        self.clik.eval()
        data = valid.data
        exhibitions = np.arange(len(data.exhibitions))
        used = data.used_products()
        own = np.zeros(len(exhibitions), bool)
        topics = self._vectors(
            len(exhibitions), lambda rows: valid.topics(exhibitions[rows], exhibitions[rows], own[rows], None),
            self._topic_vectors,
        )  # fmt: skip
        pictures = self._vectors(len(used), lambda rows: valid.pictures(used[rows], None), self._picture_vectors)
        report = evaluate_vectors(
            data,
            topic_vectors=topics.cpu().numpy(),
            query_vectors=self.clik.query_vectors(topics).cpu().numpy(),
            image_vectors=pictures.cpu().numpy(),
            matching_batch=self._config.train.matching_batch,
            resamples=0,
            linear=False,
            seed=self._config.train.seed,
        )
        values = {name: metric.value for name, metric in report.metrics.items()}
        return {**values, "mrr_random": report.metrics["mrr"].random}

    def _vectors(self, count: int, load: Callable[[slice], Any], encoder: Callable[[Any], Tensor]) -> Tensor:
        at_once = self._config.train.micro_batch or EVALUATED_AT_ONCE
        return self.rows_of(count, self.clik.memory_bank.shape[1], load, encoder, at_once=at_once)


def _accuracy(topics: Tensor, pictures: Tensor) -> dict[str, Tensor]:
    """In-batch matching accuracy both ways."""
    similarity = topics @ pictures.T
    own = torch.arange(len(topics), device=topics.device)
    return {
        "topic_to_image": (similarity.argmax(1) == own).float().mean(),
        "image_to_topic": (similarity.argmax(0) == own).float().mean(),
    }
