"""Several seeds of one recipe: the best model is kept, and how far they are apart is told.

Of few pairs fine-tuning sometimes learns nothing at all and gives every pair the same answer (Mosbach et al. 2021).
Such a model is recognised by its validation pairs, which it puts in no better order than chance may. However good its
other numbers are, it is kept only where no other is better than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from shopvision.items.pair_table import PairTable
from shopvision.matching.families._parts import Weights
from shopvision.matching.families.pair_model import Beginning, begin_training
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.inputs import Pictures
from shopvision.matching.fitting.stages import as_stage
from shopvision.matching.fitting.teaching import Taught, teach
from shopvision.matching.kinds import least_roc_auc
from shopvision.training.loop import LOWER_IS_BETTER
from shopvision.training.run import TrainingRun

FOLDER = "seeds"  # of the run, for all but the first
FEW_PAIRS = 300  # of training: with no more, seeds are far apart
USUAL = 5


@dataclass(frozen=True)
class BestOfSeeds:
    """The model that was kept.

    Attributes:
        beginning: holds it.
        taught: how it was taught.
        seed: its own.
        metric: by which it was chosen.
        values: (seeds,) that metric of each, in order.
        collapsed: how many of them learnt nothing.
        least: ROC-AUC that may be chance below.
    """

    beginning: Beginning
    taught: Taught
    seed: int
    metric: str
    values: tuple[float, ...]
    collapsed: int
    least: float

    def notes(self, pairs: int) -> list[str]:
        """What is to be told, of a training on so many pairs."""
        notes: list[str] = []
        seeds, roc_auc = len(self.values), self.taught.metrics["roc_auc"]
        if roc_auc < self.least:
            luck = f"less than {self.least:.2f} may be luck" if self.least <= 1 else "of so few, all may be luck"
            notes.append(
                "The model collapsed: it puts validation pairs in no better order than chance may "
                f"(ROC-AUC {roc_auc:.2f}; {luck}). Give more pairs, or set seeds = {max(USUAL, 2 * seeds)}."
            )
        if seeds > 1:
            low, high, middle = min(self.values), max(self.values), median(self.values)
            collapsed = f"{self.collapsed} of them collapsed" if self.collapsed else "none of them collapsed"
            notes.append(
                f"{seeds} seeds reach {self.metric} {low:.4f} to {high:.4f}, median {middle:.4f}; {collapsed}. "
                f"Kept is seed {self.seed}; chosen on validation, its own numbers there are optimistic."
            )
        elif pairs <= FEW_PAIRS:
            notes.append(
                f"Of {pairs:,} pairs another seed may make another model: seeds = {USUAL} keeps the best of {USUAL} "
                "and tells how far they are apart."
            )
        return notes


def teach_from_seeds(
    beginning: Beginning,
    config: MatcherConfig,
    run: TrainingRun,
    *,
    weights: Weights | None,
    splits: Mapping[str, PairTable],
    pictures: Mapping[str, Pictures | None],
    identity: Mapping[str, Any],
) -> BestOfSeeds:
    """``teach`` with every seed that the configuration asks for; arguments and errors as there.

    Args:
        weights: what further models begin with, where that is more than the encoders' own.
    """
    train = config.train
    metric = "f1" if train.select_by == "last" else train.select_by
    sign = -1 if metric in LOWER_IS_BETTER else 1
    positives = int((splits["valid"].labels == 1).sum())
    least = least_roc_auc(positives, len(splits["valid"]) - positives)

    def worth(taught: Taught) -> tuple[bool, float]:
        return taught.metrics["roc_auc"] >= least, sign * taught.metrics[metric]

    data: dict[str, Any] = {"splits": splits, "pictures": pictures}
    best = beginning, teach(beginning, config, run, **data, identity=identity), train.seed
    tried = [best[1].metrics]
    for number in range(1, train.seeds):
        seed = train.seed + number
        other = begin_training(config.model, config.texts, splits["train"].used_items(), seed=seed, weights=weights)
        other.model.network.to(run.process.device)
        recipe = with_seed(config, seed)
        stage = as_stage(run, f"seed {number + 1} of {train.seeds}", train.epochs)
        part = replace(run, output=run.output / FOLDER / str(seed), on_progress=stage)
        taught = teach(other, recipe, part, **data, identity={**identity, "seed": seed})
        tried.append(taught.metrics)
        if worth(taught) > worth(best[1]):
            best = other, taught, seed
    collapsed = sum(metrics["roc_auc"] < least for metrics in tried)
    return BestOfSeeds(*best, metric, tuple(metrics[metric] for metrics in tried), collapsed, least)


def with_seed(config: MatcherConfig, seed: int) -> MatcherConfig:
    """The same recipe from another seed."""
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
