"""Pair models of all families, and ensembles of them, as a kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.matching.scoring.predict import BaseScorer
    from shopvision.models.card import ModelCard


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


KINDS = (PairScorerKind(),)
