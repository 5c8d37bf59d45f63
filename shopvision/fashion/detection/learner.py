"""Detectors as learners of ``shopvision.training.loop``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shopvision.encoders.fitting_batches import FittingBatches
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.metrics import overall
from shopvision.fashion.detection.network import DetectionNetwork
from shopvision.fashion.detection.predict import PreparedPicture, by_shape, find_boxes, shape_of
from shopvision.fashion.detection.regions import Boxes, RegionRules, choose_regions
from shopvision.fashion.detection.samples import Augmentation, Sample, SampleReader, canvas_for
from shopvision.fashion.detection.score_choice import RegionFit, best_score, fit_of
from shopvision.training.distributed import Process
from shopvision.training.gradient_cache import micro_batches
from shopvision.training.learner import NetworkLearner
from shopvision.training.precision import MixedPrecision
from shopvision.training.prefetch import prefetch

if TYPE_CHECKING:
    from shopvision.fashion.detection.coco import DetectionData

EVALUATED_AT_ONCE = 16
# The same in every process, whatever is labelled.
VALIDATION_METRICS = ("map", "map_50", "map_75", "mar_100")


class DetectorLearner(NetworkLearner):
    """Trains ``network``, which lies on the process's device.

    Attributes:
        steps_per_epoch: batches of an epoch; what is left over waits for the next one.
    """

    network: DetectionNetwork

    def __init__(
        self,
        network: DetectionNetwork,
        config: DetectorConfig,
        reader: SampleReader,
        *,
        train: DetectionData,
        valid: DetectionData,
        process: Process,
    ) -> None:
        """Train on ``train`` and validate on ``valid``, whose pictures ``reader`` reads."""
        super().__init__(network, config.train, process)
        self._config, self._reader, self._train, self._valid = config, reader, train.pictures, valid.pictures
        count = len(train.pictures)
        self._batch_size = min(config.train.batch_size, count // process.world * process.world)
        self.steps_per_epoch = count // self._batch_size
        self._change = Augmentation(canvas_for(train.pictures, max(network.target)), config.train.scale)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone; what stands on it."""
        backbone = {id(weight) for weight in self.network.backbone_parameters()}
        parts: dict[str, list[Tensor]] = {"backbone": [], "head": []}
        for weight in self.network.parameters():
            if weight.requires_grad:
                parts["backbone" if id(weight) in backbone else "head"].append(weight)
        return [
            {"name": name, "lr": rate, "params": weights}
            for (name, weights), rate in zip(parts.items(), self._config.learning_rates, strict=True)
            if weights
        ]

    def batches(self, epoch: int) -> Iterator[list[Sample]]:
        """This process's share of every step, read ahead in a thread."""
        self.begin_training()
        config, process = self._config.train, self.process
        order = np.random.default_rng([config.seed, epoch]).permutation(len(self._train))
        steps = [
            order[step * self._batch_size : (step + 1) * self._batch_size][process.rank :: process.world]
            for step in range(self.steps_per_epoch)
        ]
        return prefetch(lambda rows: self._reader.read([self._train[row] for row in rows]), steps)

    def gradients(self, batch: list[Sample], precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradients of one step: pictures are changed here, where the loop has seeded torch's generator."""
        changed = [self._change(sample) for sample in batch]
        inputs = [self.network.prepare(sample.image) for sample in changed]
        total = torch.zeros((), device=self.process.device)
        most = self._config.train.micro_batch or len(batch)
        for places in by_shape([shape_of(one) for one in inputs], most):
            together = {
                name: torch.cat([inputs[place][name] for place in places]).to(self.process.device)
                for name in inputs[places[0]]
            }
            truths = [changed[place].truth.to(self.process.device) for place in places]
            with precision.autocast():
                loss = self.network.loss(together, truths)
            loss = loss.float() * (len(places) / len(batch))
            torch.autograd.backward(precision.scale(loss))
            total += loss.detach()
        return {"loss": total}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Metrics of the validation pictures; the main process measures, the others take over what it found."""
        values = torch.zeros(len(VALIDATION_METRICS), device=self.process.device, dtype=torch.float64)
        if self.process.is_main:
            self.network.eval()
            measured = overall(self._look(), [picture.truth for picture in self._valid])
            values += torch.tensor([measured.get(name, 0.0) for name in VALIDATION_METRICS], device=values.device)
        return dict(zip(VALIDATION_METRICS, self.process.total(values).tolist(), strict=True))

    @torch.no_grad()
    def choose_score(self) -> tuple[float, RegionFit] | None:
        """The score that validation pictures want of regions, and how these fit then; None where none is right."""
        self.network.eval()
        everything = replace(RegionRules(), score=0.0)
        pictures = zip(self._look(), self._valid, strict=True)
        regions = [choose_regions(found, picture.size, everything) for found, picture in pictures]
        truths = [picture.truth for picture in self._valid]
        score = best_score(regions, truths)
        return None if score is None else (score, fit_of(regions, truths, score))

    def _look(self) -> list[Boxes]:
        """Everything that the network gives for each validation picture."""
        pictures = self._valid
        batches = FittingBatches(self.process.device, EVALUATED_AT_ONCE)
        found: list[Boxes] = []
        parts = micro_batches(len(pictures), EVALUATED_AT_ONCE)
        for samples in prefetch(lambda part: self._reader.read(pictures[part]), parts):
            prepared = [self._prepared(sample, pictures[len(found) + n].size) for n, sample in enumerate(samples)]
            boxes = find_boxes(self.network, prepared, device=self.process.device, dtype=torch.float32, batches=batches)
            found += [Boxes.none() if one is None else one for one in boxes]
        return found

    def _prepared(self, sample: Sample, size: tuple[int, int]) -> PreparedPicture:
        image = sample.image
        return PreparedPicture(self.network.prepare(image), size, image.size, (0.0, 0.0, *image.size))
