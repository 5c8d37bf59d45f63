"""The training loop: AdamW with a rate per parameter group, warm-up and decay, mixed precision, checkpoints, resume.

Nothing random outlives a step: every step seeds its generators from (seed, epoch, step, rank), so a run that is
interrupted and resumed draws what it would have drawn, and on a CPU ends with the same bytes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from shopvision.errors import JobError, UserError
from shopvision.models.weights import read_tensors
from shopvision.training.checkpointing import Checkpoints, load_checkpoint, require_fresh
from shopvision.training.config import Decay, FitConfig
from shopvision.training.distributed import Process
from shopvision.training.metrics_log import MetricsLog
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun

Batch = TypeVar("Batch")
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
LOG_EVERY_STEPS = 10
LOWER_IS_BETTER = {"loss"}


class Learner(Protocol[Batch]):
    """What the loop trains.

    Attributes:
        steps_per_epoch: how many batches ``batches`` gives.
    """

    steps_per_epoch: int

    def parameter_groups(self) -> list[dict[str, Any]]:
        """AdamW's groups: each with ``name``, ``params`` and ``lr``, and where it has its own with ``weight_decay``.

        Groups of one name have one rate, which is logged once.
        """

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This process's share of every batch of an epoch (from 1 on); the same in every run."""

    def gradients(self, batch: Batch, precision: MixedPrecision) -> dict[str, Tensor]:
        """Add the gradient of ``precision.scale(loss)``; returns ``loss`` and other scalars, detached.

        Networks run within ``precision.autocast()``, losses and ``backward`` outside. The mean of the processes'
        gradients must be that of the joint batch.
        """

    def evaluate(self) -> dict[str, float]:
        """Validation metrics, equal in every process; empty where there is nothing to validate on."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``tensors`` once gave."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """The epoch that was kept, its validation metrics, and the mean wall seconds of an epoch of this process."""

    best_epoch: int
    metrics: dict[str, float]
    seconds_per_epoch: float


def learning_rate_factor(step: int, total: int, warmup: int, decay: Decay = "cosine") -> float:
    """Of step 0, 1, ...: a linear rise that ends with 1 in ``warmup`` steps, then a fall to 0 at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return 1.0 - done if decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def step_seed(*parts: int) -> int:
    """A seed for one place in a run, e.g. (seed, epoch, step, rank): far from those of its neighbours."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class _State:
    """Of one call of ``fit``."""

    def __init__(
        self,
        learner: Learner[Any],
        config: FitConfig,
        checkpoints: Checkpoints,
        process: Process,
        optimizer: MakeOptimizer | None,
    ) -> None:
        self.learner, self.config, self.process = learner, config, process
        self.checkpoints = checkpoints
        groups = [{**group, "initial_lr": group["lr"]} for group in learner.parameter_groups()]
        self.optimizer = (
            torch.optim.AdamW(groups, weight_decay=config.weight_decay) if optimizer is None else optimizer(groups)
        )
        self.precision = MixedPrecision(config.precision, process.device)
        self.epoch = 0
        self.best: dict[str, Any] = {"epoch": 0, "metrics": {}}

    def resume(self, folder: Path, identity: str) -> None:
        tensors, state = load_checkpoint(folder)
        if difference := _first_difference(json.loads(state["identity"]), json.loads(identity)):
            raise UserError(f"--resume: {difference} differs from the interrupted run; use another --output.")
        self.learner.load(tensors)
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best = state["epoch"], state["best"]

    def train_epoch(self, log: MetricsLog | None, on_progress: Callable[[TrainingProgress], None]) -> None:
        self.epoch += 1
        steps = self.learner.steps_per_epoch
        waiting: list[dict[str, Tensor]] = []
        for number, batch in enumerate(self.learner.batches(self.epoch), start=1):
            torch.manual_seed(step_seed(self.config.seed, self.epoch, number, self.process.rank))
            done = (self.epoch - 1) * steps + number
            rates = self._set_rates(done - 1)
            waiting.append(self._step(batch))
            if number % LOG_EVERY_STEPS and number < steps:
                on_progress(TrainingProgress(self.epoch, number, steps, {}))
                continue
            metrics = {name: float(torch.stack([row[name] for row in waiting]).mean()) for name in waiting[0]}
            waiting.clear()
            if not math.isfinite(metrics["loss"]):
                raise JobError(
                    f"The loss is {metrics['loss']} in epoch {self.epoch}, step {number}: lower the learning rates, or "
                    'set precision = "float32".'
                )
            if log:
                log.write("train", self.epoch, done, metrics | rates)
            on_progress(TrainingProgress(self.epoch, number, steps, metrics))

    def _set_rates(self, step: int) -> dict[str, float]:
        total = self.config.epochs * self.learner.steps_per_epoch
        warmup = math.ceil(self.config.warmup_fraction * total)
        factor = learning_rate_factor(step, total, warmup, self.config.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}

    def _step(self, batch: Any) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.learner.gradients(batch, self.precision)
        weights = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.process.average_gradients(weights)
        if self.config.clip_norm is not None:
            self.precision.scaler.unscale_(self.optimizer)
            metrics["gradient_norm"] = torch.nn.utils.clip_grad_norm_(weights, self.config.clip_norm)
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        return metrics

    def finish_epoch(self, identity: str, log: MetricsLog | None) -> None:
        metrics = self.learner.evaluate()
        if self._is_better(metrics):
            self.best = {"epoch": self.epoch, "metrics": metrics}
            if self.process.is_main:
                self.checkpoints.save_best(self.learner.tensors())
        if log:
            log.write("valid", self.epoch, self.epoch * self.learner.steps_per_epoch, metrics)
        if self.process.is_main:
            state = {
                "identity": identity,
                "epoch": self.epoch,
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
            }
            self.checkpoints.save(self.epoch, self.learner.tensors(), state)
        self.process.wait()

    def is_stuck(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs have gone by without a better one; None waits for ever."""
        best: int = self.best["epoch"]
        return patience is not None and bool(best) and self.epoch - best >= patience

    def _is_better(self, metrics: Mapping[str, float]) -> bool:
        chosen = self.config.select_by
        if chosen == "last" or not self.best["epoch"]:
            return True
        before: float = self.best["metrics"][chosen]
        now = metrics[chosen]
        return now < before if chosen in LOWER_IS_BETTER else now > before


def fit(
    learner: Learner[Any],
    config: FitConfig,
    run: TrainingRun,
    *,
    identity: Mapping[str, Any],
    keep_epochs: bool = False,
    patience: int | None = None,
    optimizer: MakeOptimizer | None = None,
) -> FitResult:
    """Train; afterwards ``learner`` holds the best epoch.

    Args:
        learner: what is trained, on the device of the run's process.
        config: how.
        run: where checkpoints, metrics and curves go, and whether an interrupted run is continued after its last
            complete epoch.
        identity: JSON values that must not change between an interrupted run and its continuation.
        keep_epochs: keep the tensors of every epoch in ``Checkpoints(output).epochs()``.
        patience: stop after so many epochs without a better one by ``select_by``.
        optimizer: made of the learner's groups in place of AdamW.

    Raises:
        UserError: ``run.output`` holds another run or cannot be made, or ``select_by`` names no metric.
        JobError: the loss is not finite.
    """
    output, process = run.output, run.process
    state = _State(learner, config, Checkpoints(output, keep_tensors=keep_epochs), process, optimizer)
    text = json.dumps(identity, sort_keys=True)
    require_fresh(output, resume=run.resume)
    if latest := state.checkpoints.latest():
        state.resume(latest, text)
    elif config.select_by != "last":
        _require_metric(config.select_by, learner.evaluate())
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output} cannot be made ({error.strerror}): choose another --output.") from None
    process.wait()
    first, started = state.epoch, time.perf_counter()
    log = None
    if process.is_main:
        log = MetricsLog(output, epochs_done=state.epoch, steps_done=state.epoch * learner.steps_per_epoch)
    try:
        while state.epoch < config.epochs and not state.is_stuck(patience):
            state.train_epoch(log, run.on_progress)
            state.finish_epoch(text, log)
    finally:
        if log:
            log.close()
    seconds = (time.perf_counter() - started) / max(1, state.epoch - first)
    learner.load(read_tensors(state.checkpoints.best))
    return FitResult(state.best["epoch"], state.best["metrics"], seconds)


def _require_metric(name: str, metrics: Mapping[str, float]) -> None:
    if not metrics:
        raise UserError(f'train.select_by = "{name}" needs validation data: add some, or set select_by = "last".')
    if name not in metrics:
        raise UserError(f'train.select_by = "{name}" is unknown; there are {", ".join(metrics)} and last.')


def _first_difference(before: Any, now: Any, path: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            if found := _first_difference(before.get(name), now.get(name), f"{path}.{name}" if path else name):
                return found
        return None
    return None if before == now else path
