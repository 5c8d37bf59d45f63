"""The learner of a pair model: with one tower or with two, and what draws its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shopvision.items.pair_table import PairTable
from shopvision.matching.families._family import OneTowerFamily
from shopvision.matching.families._network import PairReader
from shopvision.matching.families._parts import FamilyOptions
from shopvision.matching.families.losses import LossOptions
from shopvision.matching.families.pair_model import Beginning, PairModel
from shopvision.matching.fitting.config import TrainConfig
from shopvision.matching.fitting.distillation_config import DistillationConfig
from shopvision.matching.fitting.inputs import ItemInputs, PairInputs, Pictures
from shopvision.matching.fitting.learner import MatcherLearner
from shopvision.matching.fitting.one_tower_learner import OneTowerLearner
from shopvision.matching.fitting.sampling import LengthSampler, NegativesSampler, Sampler
from shopvision.matching.fitting.two_tower_learner import TwoTowerLearner
from shopvision.training.distributed import Process


def make_learner(
    beginning: Beginning,
    options: FamilyOptions,
    config: TrainConfig,
    distillation: DistillationConfig | None,
    *,
    splits: Mapping[str, PairTable],
    pictures: Mapping[str, Pictures | None],
    process: Process,
) -> MatcherLearner[Any, Any]:
    """What trains the model, which lies on the process's device.

    Args:
        beginning: the model.
        options: section ``[model]``.
        config: section ``[train]``; its precision is settled, not ``auto``.
        distillation: section ``[distillation]``.
        splits: labelled pairs by the names ``train`` and ``valid``.
        pictures: of their items.
        process: this process.

    Raises:
        UserError: the processes cannot share the steps.
    """
    model, encoders = beginning.model, tuple(beginning.start.weights)
    frozen = model.family.freeze(model.network, options)
    axes, symmetric = model.arguments.axes, model.arguments.symmetric
    inputs: dict[str, Any] = {name: make_inputs(model, splits[name], pictures[name]) for name in ("train", "valid")}
    common: dict[str, Any] = {
        "frozen": frozen, "distillation": distillation, "process": process, "symmetric": symmetric,
    }  # fmt: skip
    if isinstance(model.family, OneTowerFamily):
        sampler = _sampler(config, splits["train"], inputs["train"], process, in_batch=False)
        one = model.family.losses[axes.loss]
        inputs["train"].learn_first(model.network)
        return OneTowerLearner(model.network, encoders, config, sampler, loss=one, **inputs, **common)
    loss, options_of_loss = model.family.losses[axes.loss], LossOptions(options.margin, options.scale)
    sampler = _sampler(config, splits["train"], inputs["train"], process, in_batch=loss.in_batch)
    return TwoTowerLearner(
        model.network, encoders, config, sampler, axes=axes, loss=loss, loss_options=options_of_loss, **inputs, **common
    )


def make_inputs(model: PairModel, table: PairTable, pictures: Pictures | None) -> PairInputs | ItemInputs:
    """What the model is fed of labelled pairs; ``pictures`` are of ``table.used_items()``."""
    if isinstance(model.reader, PairReader):
        return PairInputs(table, model.reader, pictures)
    return ItemInputs(table, model.reader, pictures)


def _sampler(
    config: TrainConfig, table: PairTable, train: PairInputs | ItemInputs, process: Process, *, in_batch: bool
) -> Sampler:
    if in_batch:
        return NegativesSampler(
            table,
            batch_size=config.batch_size,
            hard_negatives=config.hard_negatives,
            world=process.world,
            seed=config.seed,
            swap=config.swap_pairs,
        )
    return LengthSampler(
        train.pair_lengths(),
        batch_size=config.batch_size,
        world=process.world,
        seed=config.seed,
        swap=config.swap_pairs,
    )
