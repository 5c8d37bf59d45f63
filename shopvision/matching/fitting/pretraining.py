"""Learning from a shop's items without labels, before its pairs: the stage ``[pretraining]`` of ``train matcher``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shopvision.matching.fitting.pretraining_learner import PretrainingLearner, read_inputs
from shopvision.matching.fitting.stages import stage_of, with_what_was_learnt
from shopvision.training.loop import fit
from shopvision.training.run import TrainingRun

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.matching.families.pair_model import Beginning
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.matching.fitting.inputs import Pictures

FOLDER = "pretraining"  # of the run


def pretrain(
    beginning: Beginning,
    config: MatcherConfig,
    run: TrainingRun,
    *,
    items: Sequence[Item],
    pictures: Pictures | None,
    identity: Mapping[str, Any],
) -> tuple[Beginning, str]:
    """Teach the model, which lies on the process's device, what items are like.

    Args:
        beginning: the model.
        config: of the run; its precision is settled.
        run: of the model; checkpoints lie below its folder.
        items: to learn from.
        pictures: of them.
        identity: of the run.

    Returns:
        The model with the best epoch's weights, which are what others of the same recipe begin with as well, and what
        is to be told.

    Raises:
        UserError: too few items, a text encoder that cannot learn so, or the run was another one.
        JobError: the loss is not finite, or a picture vanished meanwhile.
    """
    section = config.pretraining
    assert section is not None  # noqa: S101 - for the type checker: there are items to learn from
    inputs = read_inputs(beginning, items, pictures, section)
    learner = PretrainingLearner(beginning, config.model, section, inputs, run.process)
    stage = stage_of(run, FOLDER, section.epochs)
    result = fit(learner, section, stage, identity={**identity, "items": _fingerprint(items)})
    learner.finish()
    learnt = [
        name
        for name, part in beginning.model.network.named_children()
        if name not in learner.network.untouched and any(True for _ in part.parameters())
    ]
    terms = ", ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in result.metrics.items())
    note = (
        f"Learnt from {len(items):,} items before: losses of held-out ones in epoch {result.best_epoch} are {terms}. "
        f"All that the model is made of begins the fine-tuning; {', '.join(learner.network.left_behind)} asked the "
        "questions and stay behind."
    )
    return with_what_was_learnt(beginning, learnt), note


def _fingerprint(items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.content_hash())
    return digest.hexdigest()
