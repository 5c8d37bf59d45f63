"""Every family is stored, loaded from its card, and a member of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from shopvision.items.item import Item
from shopvision.matching.families.registry import find_family
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.matching.scoring.ensemble_card import ensemble_arguments, save_ensemble
from shopvision.matching.scoring.predict import PairScorer
from tests.unit.matching.tiny_matcher import (
    BERT,
    COSINE,
    ONE,
    THRESHOLDS,
    arguments,
    save_model,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
)

ITEMS = [Item(str(n), title, category="shoe") for n, title in enumerate(["red shoe", "nike shoe", "blue band", "1 2"])]
LEFT, RIGHT = np.triu_indices(4, 1)
MADE: dict[str, dict[str, Any]] = {
    "text_cnn": {"axes": COSINE, "vocabulary": len(tiny_tokenizer()), "width": 8, "texts": {"max_length": 32}},
    "text_fields_one_tower": {"axes": ONE, "text_config": BERT, "fields": {"title": 16, "category": 8}},
}


def test_families_are_loaded_from_their_cards_and_vote_together(tmp_path: Path) -> None:
    folders = []
    for family, fields in MADE.items():
        model = tiny_model(find_family(family).arguments.model_validate({"family": family, **fields}))
        save_model(tmp_path / family, model)
        folders.append(tmp_path / family)
    for number, (family, axes, changes) in enumerate(
        [
            ("text_image_two_tower", COSINE, {"fusion": "begin"}),
            ("text_image_two_tower", COSINE, {"fusion": "end", "unit_features": False}),
            ("text_image_one_tower", ONE, {"picture_tokens": False, "compare_pictures": True}),
        ]
    ):
        save_tiny(tmp_path / str(number), arguments(family, axes, **changes))
        folders.append(tmp_path / str(number))
    alone = np.stack([PairScorer(folder, precision="float32").score(ITEMS, LEFT, RIGHT) for folder in folders], 1)
    assert np.isfinite(alone).all()
    assert (alone.std(0) > 0).all()
    thresholds = tuple(0.1 * (place + 1) for place in range(len(folders)))
    together = ensemble_arguments(folders, method="threshold_margin", thresholds=(thresholds, thresholds))
    save_ensemble(tmp_path / "all", folders, together, name="all", thresholds=THRESHOLDS)
    scorer = load_scorer(tmp_path / "all", precision="float32")
    np.testing.assert_allclose(
        scorer.score(ITEMS, LEFT, RIGHT), expit((alone - thresholds).sum(1)), rtol=1e-4, atol=1e-5
    )
