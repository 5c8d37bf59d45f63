"""Dual towers as learners of ``shopvision.training.loop``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.evaluation.text_retrieval import TextRetrieval, retrieve_pictures
from shopvision.graph.losses import translation_distance, translation_losses
from shopvision.training.contrastive import PairVectors, contrastive_loss
from shopvision.training.gradient_cache import GradientCache, micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.pair_sampling import PairSampler
from shopvision.training.pixels import PixelsToInput
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.selection.recall.config import RecallConfig
    from shopvision.selection.recall.graph_batches import GraphBatch, GraphSampler
    from shopvision.selection.recall.inputs import Inputs
    from shopvision.selection.recall.model import DualTower
    from shopvision.training.distributed import Process

KS = (1, 5, 10)
EVALUATED_AT_ONCE = 256
LOWEST_FACTOR, HIGHEST_FACTOR = 0.01, 100.0


@dataclass(frozen=True)
class TrainingRows:
    """n examples by the rows of their texts and pictures.

    Attributes:
        texts: of each the row of its text, then those of other texts.
        pictures: of each the rows of its pictures.
        contents: (pictures,) of every picture, equal for equal bytes.
        categories: (n,) names.
    """

    texts: Sequence[NDArray[np.int64]]
    pictures: Sequence[NDArray[np.int64]]
    contents: NDArray[np.int64]
    categories: Sequence[str]


@dataclass(frozen=True)
class SearchRows:
    """What validation asks: n texts among m pictures.

    Attributes:
        texts: (n,) rows.
        pictures: (m,) rows.
        right: for each text the places among the m pictures that show it.
    """

    texts: NDArray[np.int64]
    pictures: NDArray[np.int64]
    right: Sequence[Sequence[int]]


@dataclass(frozen=True)
class RecallBatch:
    """One process's share of a step.

    Attributes:
        texts: of n examples.
        pictures: one of each.
        numbers: (n,) equal for equal texts.
        contents: (n,) equal for pictures of equal bytes.
        graph: triples, where there is a graph.
    """

    texts: TokenBatch | Tensor
    pictures: Tensor
    numbers: Tensor
    contents: Tensor
    graph: GraphBatch | None


@dataclass(frozen=True)
class Found:
    """What texts find.

    Attributes:
        texts: (n, h) their vectors.
        pictures: (m, h) vectors of what is searched among.
        right: for each text the rows of its pictures.
        retrieval: how well.
    """

    texts: NDArray[np.float32]
    pictures: NDArray[np.float32]
    right: Sequence[Sequence[int]]
    retrieval: TextRetrieval


class RecallLearner(NetworkLearner):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        steps_per_epoch: batches of an epoch.
    """

    network: DualTower

    def __init__(
        self,
        network: DualTower,
        config: RecallConfig,
        inputs: Inputs,
        preprocessing: Preprocessing,
        *,
        train: TrainingRows,
        valid: SearchRows,
        graph: GraphSampler | None,
        process: Process,
    ) -> None:
        """Train on ``train`` and ``graph``, and validate on ``valid``; ``inputs`` gives what their rows mean."""
        frozen = (network.text.network, network.image.network) if config.model.frozen else ()
        super().__init__(network, config.train, process, frozen=frozen)
        self._config, self._inputs, self._train, self._valid, self._graph = config, inputs, train, valid, graph
        self._to_input = PixelsToInput(preprocessing, process.device)
        self._sampler = PairSampler(
            train.categories, config.train.batch_size, one_category=config.train.one_category, seed=config.train.seed
        )
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The heads with the relations; the scale; the encoders, where they learn."""
        network, train = self.network, self._config.train
        heads = [network.image.head, network.text.head, *([network.relations] if network.relations else [])]
        groups: list[dict[str, Any]] = [
            {"name": "heads", "lr": train.lr, "params": [one for head in heads for one in head.parameters()]},
            {"name": "scale", "lr": train.lr, "params": [network.logit_scale], "weight_decay": 0.0},
            {"name": "text", "lr": train.lr_text, "params": list(network.text.network.parameters())},
            {"name": "image", "lr": train.lr_image, "params": list(network.image.network.parameters())},
        ]
        for group in groups:
            group["params"] = [weight for weight in group["params"] if weight.requires_grad]
        return [group for group in groups if group["params"]]

    def batches(self, epoch: int) -> Iterator[RecallBatch]:
        """This process's share of every step, loaded ahead in a thread."""
        self.begin_training()
        return prefetch(lambda numbered: self._load(epoch, *numbered), enumerate(self._sampler.epoch(epoch), start=1))

    def _load(self, epoch: int, number: int, examples: NDArray[np.int64]) -> RecallBatch:
        """What is drawn is drawn for the whole step, so that more processes see the same."""
        data, process, train = self._train, self.process, self._config.train
        generator = np.random.default_rng([train.seed, epoch, number])
        asks_otherwise = generator.random(len(examples)) < train.other_texts
        drawn = generator.random((len(examples), 2))
        crops = generator.random((len(examples), 2))
        texts = np.array([
            _asked(data.texts[one], draw, otherwise=other)
            for one, draw, other in zip(examples, drawn[:, 0], asks_otherwise, strict=True)
        ])  # fmt: skip
        pictures = np.array([
            _at(data.pictures[one], draw) for one, draw in zip(examples, drawn[:, 1], strict=True)
        ])  # fmt: skip
        share = slice(process.rank, None, process.world)
        return RecallBatch(
            self._inputs.texts(texts[share]),
            self._inputs.pictures(pictures[share], crops[share]),
            torch.from_numpy(texts[share]),
            torch.from_numpy(data.contents[pictures[share]]),
            None if self._graph is None else self._graph.load(self._inputs, epoch, number, share),
        )

    def gradients(self, batch: RecallBatch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns losses, the factor, and how many texts find their picture in it."""
        self._keep_factor_in_bounds()
        cache, device = GradientCache(precision.autocast), self.process.device
        pairs = PairVectors(
            self._cached(cache, self._text_vectors, batch.texts),
            self._cached(cache, self._picture_vectors, batch.pictures),
            batch.numbers.to(device),
            batch.contents.to(device),
        )
        loss = contrastive = contrastive_loss(pairs, 1.0 / self.network.factor())
        metrics: dict[str, Tensor] = {}
        if batch.graph is not None:
            translation = self._translation(cache, batch.graph)
            loss = contrastive + self._config.graph.weight * translation
            metrics |= {"contrastive_loss": contrastive.detach(), "graph_loss": translation.detach()}
        cache.backward(precision.scale(loss))
        found = pairs.found().float().mean()
        return {"loss": loss.detach(), **metrics, "in_batch_recall_1": found, "factor": self.network.factor().detach()}

    def _translation(self, cache: GradientCache, batch: GraphBatch) -> Tensor:
        """The mean loss of triples."""
        relations = self.network.relations
        if relations is None:
            raise AssertionError("a graph comes with relations")
        device = self.process.device
        heads = self._cached(cache, self._text_vectors, batch.heads)
        tails = [
            self._cached(cache, encoder, inputs)
            for encoder, inputs in (
                (self._text_vectors, batch.text_tails), (self._picture_vectors, batch.picture_tails)
            )
            if inputs is not None
        ]  # fmt: skip
        right, wrong = torch.cat(tails)[batch.order.to(device)].chunk(2)
        moves = relations(batch.relations.to(device))
        near, far = translation_distance(heads, moves, right), translation_distance(heads, moves, wrong)
        return translation_losses(near, far, self._config.graph.margin).mean()

    @torch.no_grad()
    def _keep_factor_in_bounds(self) -> None:
        bounds = LOWEST_FACTOR, HIGHEST_FACTOR
        if self._config.model.scale == "exponential":
            bounds = math.log(LOWEST_FACTOR), math.log(HIGHEST_FACTOR)
        self.network.logit_scale.clamp_(*bounds)

    def _text_vectors(self, texts: TokenBatch | Tensor) -> Tensor:
        """Features or tokens of n texts -> (n, h) of unit length, on the device."""
        moved, tower = texts.to(self.process.device), self.network.text
        vectors: Tensor = tower.from_features(moved) if isinstance(moved, Tensor) else tower(moved)
        return vectors

    def _picture_vectors(self, pictures: Tensor) -> Tensor:
        """Features (n, d) or pixels (n, H, W, 3) uint8 -> (n, h) of unit length, on the device."""
        moved, tower = pictures.to(self.process.device, non_blocking=True), self.network.image
        vectors: Tensor = tower.from_features(moved) if moved.ndim == 2 else tower(self._to_input(moved))
        return vectors

    def _cached(self, cache: GradientCache, encoder: Callable[[Any], Tensor], inputs: TokenBatch | Tensor) -> Tensor:
        parts = micro_batches(len(inputs), self._config.train.micro_batch)
        rows = [inputs.rows(part) if isinstance(inputs, TokenBatch) else inputs[part] for part in parts]
        return cache.embed(encoder, rows)

    def evaluate(self) -> dict[str, float]:
        """How well the texts of validation find their pictures."""
        return {name: float(values.mean()) for name, values in self.found().retrieval.columns(KS).items()}

    def found(self) -> Found:
        """What the vectors of now find in validation; equal in every process."""
        self.network.eval()
        valid, inputs = self._valid, self._inputs
        texts = self._encoded(len(valid.texts), lambda part: inputs.texts(valid.texts[part]), self._text_vectors)
        pictures = self._encoded(
            len(valid.pictures), lambda part: inputs.pictures(valid.pictures[part], None), self._picture_vectors
        )
        return Found(texts, pictures, valid.right, retrieve_pictures(texts, pictures, valid.right, KS))

    def _encoded(
        self, count: int, load: Callable[[slice], Any], encoder: Callable[[Any], Tensor]
    ) -> NDArray[np.float32]:
        at_once = self._config.train.micro_batch or EVALUATED_AT_ONCE
        rows: NDArray[np.float32] = (
            self.rows_of(count, self.network.image.head.dimension, load, encoder, at_once=at_once).cpu().numpy()
        )
        return rows


def _asked(rows: NDArray[np.int64], draw: float, *, otherwise: bool) -> int:
    """The row of an example's text, or of one of its other texts where it has any."""
    return _at(rows[1:], draw) if otherwise and len(rows) > 1 else int(rows[0])


def _at(rows: NDArray[np.int64], draw: float) -> int:
    """The row that a number from 0 to 1 falls on."""
    return int(rows[int(draw * len(rows))])
