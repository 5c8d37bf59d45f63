"""Thumbnail classifiers as learners of ``shopvision.training.loop``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.evaluation.class_metrics import measure_classes
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.data import LabelledPictures
from shopvision.fashion.thumbnails.network import ClassifierNetwork
from shopvision.images.preprocessing import Preprocessing
from shopvision.training.distributed import Process
from shopvision.training.features import Features
from shopvision.training.gradient_cache import micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.pixels import PixelReader
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class Inputs:
    """n pictures as the network reads them: vectors of the frozen encoder, or pixels."""

    data: LabelledPictures
    source: Features | PixelReader

    def take(self, rows: NDArray[np.int64], crops: NDArray[np.float64] | None) -> Tensor:
        """(len(rows), d) float32, or (len(rows), H, W, 3) uint8, cut out at ``crops`` (see ``PixelReader.read``)."""
        if isinstance(self.source, Features):
            return self.source.take(rows)
        return self.source.read([self.data.uris[row] for row in rows.tolist()], crops)

    def rows(self, kept: NDArray[np.int64]) -> Inputs:
        """Some of them."""
        source = self.source
        if isinstance(source, Features):
            source = Features(source.vectors, source.rows[kept])
        return Inputs(self.data.rows(kept), source)


@dataclass(frozen=True)
class Batch:
    """One process's share of a step: inputs, (n,) labels, and how many pictures the whole step has."""

    inputs: Tensor
    labels: Tensor
    step_size: int


class ClassifierLearner(NetworkLearner):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        steps_per_epoch: batches of an epoch; what is left over waits for the next one.
    """

    network: ClassifierNetwork

    def __init__(
        self,
        network: ClassifierNetwork,
        config: ClassifierConfig,
        preprocessing: Preprocessing,
        *,
        train: Inputs,
        valid: Inputs,
        process: Process,
    ) -> None:
        """Train on ``train`` and validate on ``valid``."""
        super().__init__(network, config.train, process, frozen=(network.backbone,) if config.model.frozen else ())
        self._config, self._train, self._valid = config, train, valid
        self._batch_size = min(config.train.batch_size, len(train.data) // process.world * process.world)
        self.steps_per_epoch = len(train.data) // self._batch_size
        mean, std = (torch.tensor(values, device=process.device) for values in (preprocessing.mean, preprocessing.std))
        self._scale, self._shift = (1.0 / (255.0 * std)).view(3, 1, 1), (-mean / std).view(3, 1, 1)
        self._weights = class_weights(train.data, config.train.class_weights).to(process.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoder, where it learns; the linear layer."""
        parts: list[tuple[str, float, nn.Module]] = [("head", self._config.head_rate, self.network.head)]
        if not self._config.model.frozen:
            parts.insert(0, ("backbone", self._config.train.lr_backbone, self.network.backbone))
        return [
            {"name": name, "lr": rate, "params": [weight for weight in part.parameters() if weight.requires_grad]}
            for name, rate, part in parts
        ]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This process's share of every step, loaded ahead in a thread."""
        self.begin_training()
        size = self._batch_size
        generator = np.random.default_rng([self._config.train.seed, epoch])
        order = generator.permutation(len(self._train.data))[: self.steps_per_epoch * size]
        # Drawn for the whole epoch, so that more processes see the same crops.
        steps = zip(order.reshape(-1, size), generator.random((self.steps_per_epoch, size, 3)), strict=True)
        return prefetch(self._load, steps)

    def _load(self, step: tuple[NDArray[np.int64], NDArray[np.float64]]) -> Batch:
        share = slice(self.process.rank, None, self.process.world)
        rows, drawn = step[0][share], step[1][share]
        inputs = self._train.take(rows, drawn[:, :2])
        if inputs.ndim == 4 and self._config.train.flip:
            mirrored = torch.from_numpy(drawn[:, 2] < 0.5)
            inputs[mirrored] = inputs[mirrored].flip(2)
        return Batch(inputs, torch.from_numpy(self._train.data.labels[rows]), len(step[0]))

    def gradients(self, batch: Batch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step; returns the loss and the accuracy of this process's share."""
        device, count = self.process.device, len(batch.labels)
        loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
        for part in micro_batches(count, self._config.train.micro_batch):
            labels = batch.labels[part].to(device)
            with precision.autocast():
                logits = self._logits(batch.inputs[part])
            # The mean over processes is the mean over the step's pictures, each with the weight of its class.
            summed = nn.functional.cross_entropy(logits.float(), labels, weight=self._weights, reduction="sum")
            share = summed * (self.process.world / batch.step_size)
            torch.autograd.backward(precision.scale(share))
            loss += share.detach()
            right += (logits.detach().argmax(1) == labels).sum()
        return {"loss": loss, "accuracy": right / count}

    def _logits(self, inputs: Tensor) -> Tensor:
        """Features (n, d) or pixels (n, H, W, 3) uint8 -> (n, classes)."""
        moved = inputs.to(self.process.device, non_blocking=True)
        if moved.ndim == 2:
            return self.network.logits(moved)
        found: Tensor = self.network(moved.permute(0, 3, 1, 2).float() * self._scale + self._shift)
        return found

    def validation_logits(self) -> Tensor:
        """(n, classes) float32 of the validation pictures; every process computes some, all get all."""
        self.network.eval()
        data = self._valid.data

        def load(rows: slice) -> Tensor:
            return self._valid.take(np.arange(len(data))[rows], None)

        at_once = self._config.train.micro_batch or EVALUATED_AT_ONCE
        return self.rows_of(len(data), len(data.classes), load, self._logits, at_once=at_once)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the validation pictures."""
        probabilities = self.validation_logits().softmax(1).cpu().numpy()
        found = measure_classes(self._valid.data.labels, probabilities, resamples=0)
        return {name: measured.value for name, measured in found.metrics.items()}


def class_weights(data: LabelledPictures, kind: str) -> Tensor:
    """(classes,) what a picture of each class counts in the loss; their mean over the pictures is 1."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    if kind == "none":
        return torch.ones(len(counts))
    occurring = counts > 0
    weights = np.where(occurring, len(data) / (occurring.sum() * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights).float()
