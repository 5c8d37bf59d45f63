"""Pair models of all families, and ensembles of them, as a kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.errors import UserError
from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.matching.scoring.predict import BaseScorer
    from shopvision.models.card import ModelCard

# Of pairs drawn at random a model that knows nothing puts half in the right order; what helps a shop is far above.
LEAST_ROC_AUC = 0.6


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
        measured = card.metrics.get("roc_auc")
        if measured is None or measured >= LEAST_ROC_AUC:
            return None
        return f"tells labelled pairs apart hardly better than chance (ROC-AUC {measured:.2f}, chance 0.50)"


KINDS = (PairScorerKind(),)
