"""Learning which offers are one product, before pairs: the stage ``[contrastive]`` of ``train matcher``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shopvision.matching.fitting.contrastive_learner import ContrastiveLearner
from shopvision.matching.fitting.stages import stage_of, with_what_was_learnt
from shopvision.training.loop import fit

if TYPE_CHECKING:
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.families.pair_model import Beginning
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.training.run import TrainingRun

FOLDER = "contrastive"  # of the run


def contrast(
    beginning: Beginning,
    config: MatcherConfig,
    run: TrainingRun,
    *,
    splits: Mapping[str, PairTable],
    identity: Mapping[str, Any],
) -> tuple[Beginning, str]:
    """Teach the model, which lies on the process's device, to put offers of one product together.

    Args:
        beginning: the model.
        config: of the run; its precision is settled.
        run: of the model; checkpoints lie below its folder.
        splits: labelled pairs by the names ``train`` and ``valid``.
        identity: of the run.

    Returns:
        The model with the best epoch's weights, which are what others of the same recipe begin with as well, and what
        is to be told.

    Raises:
        UserError: no two offers are one product, the processes cannot share the steps, or the run was another one.
        JobError: the loss is not finite.
    """
    section = config.contrastive
    assert section is not None  # noqa: S101 - for the type checker: the caller has looked
    train, valid = splits["train"], splits["valid"]
    learner = ContrastiveLearner(beginning, config.model, section, train=train, valid=valid, process=run.process)
    before = learner.evaluate()
    result = fit(learner, section, stage_of(run, FOLDER, section.epochs), identity=identity)
    learner.finish()
    after = result.metrics
    note = (
        f"Put {len(learner.known.product):,} offers of {learner.known.count:,} products together before: by the cosine "
        f"alone validation pairs have average precision {after['average_precision']:.3f} after epoch "
        f"{result.best_epoch} ({before['average_precision']:.3f} before), best F1 {after['f1']:.3f} "
        f"({before['f1']:.3f})."
    )
    return with_what_was_learnt(beginning, learner.learnt), note
