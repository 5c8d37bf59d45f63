"""Pair models of all families, and ensembles of them, as a kind of model."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.errors import UserError
from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.matching.scoring.predict import BaseScorer
    from shopvision.models.card import ModelCard

# Of pairs drawn at random a model that knows nothing puts half in the right order; what helps a shop is far above.
LEAST_ROC_AUC = 0.6
# Of few pairs it may put far more so by luck, and the best of several epochs and seeds has had several tries: standard
# deviations that are passed once in a hundred.
LUCK = 2.326


def least_roc_auc(positives: int, negatives: int) -> float:
    """The ROC-AUC that says of labelled pairs that a model knows something; above 1 where so few cannot say it.

    Mann and Whitney (1947): 30 positives and 30 negatives need 0.67, 4 and 8 need 0.93, 3 and 3 do not suffice.
    """
    if not positives or not negatives:
        return LEAST_ROC_AUC
    deviation = sqrt((positives + negatives + 1) / (12 * positives * negatives))
    return max(LEAST_ROC_AUC, 0.5 + LUCK * deviation)


def _from_encoder(source: str, folder: Path) -> ModelCard:
    from shopvision.matching.families.item_encoder import make_item_encoder

    return make_item_encoder(source, folder)


class PairScorerKind(ModelKind):
    """Which items are the same product. One with item vectors, a two-tower, also finds candidates."""

    name = "pair_scorer"
    roles = ("pair_scorer", "pair_blocker")
    schemes = (
        ImportScheme(
            "item-encoder", "SOURCE", "a sentence encoder as a pair model that needs no training", _from_encoder
        ),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> BaseScorer:
        """See ``ModelKind``."""
        from shopvision.matching.scoring.ensemble import load_scorer

        return load_scorer(folder, device=device, precision=precision)

    def require_fit(self, card: ModelCard, role: str) -> None:
        """See ``ModelKind``."""
        if role == "pair_blocker" and card.architecture.arguments.get("axes", {}).get("interaction") != "two_tower":
            raise UserError(f"{card.spec} has no item vectors: a two-tower model is needed to find candidates.")

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - vectors and scores are of one model
        """See ``ModelKind``."""
        measured, least = card.metrics.get("roc_auc"), LEAST_ROC_AUC
        if card.promises is not None:
            seen = card.promises.evidence
            least = least_roc_auc(seen.validation_positives, seen.validation - seen.validation_positives)
        if measured is None or measured >= least:
            return None
        told = f"ROC-AUC {measured:.2f}, chance 0.50"
        if measured >= LEAST_ROC_AUC:
            told += f", of {seen.validation} pairs, which may be luck: give more of them"
        return f"tells labelled pairs apart hardly better than chance ({told})"


KINDS = (PairScorerKind(),)
