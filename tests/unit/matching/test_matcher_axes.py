"""Which interactions, heads, similarities and losses go together: all 240 combinations."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from shopvision.errors import UserError
from shopvision.matching.families.axes import Axes, Head, Interaction, Loss, Similarity

LEGAL = {
    *(("one_tower", "pair", "none", loss) for loss in ("ce", "bce")),
    *(("two_tower", head, "none", loss) for head in ("interaction", "additive") for loss in ("ce", "bce")),
    *(("two_tower", "metric", "cosine", loss) for loss in ("cosine", "hinge", "bce", "contrastive", "mnr")),
    *(("two_tower", "metric", "inner_product", loss) for loss in ("bce", "hinge", "mnr")),
    ("two_tower", "metric", "l1", "contrastive"),
    ("two_tower", "metric", "l2", "contrastive"),
}


def test_legal_combinations_and_no_others() -> None:
    accepted = set()
    for choice in product(*map(get_args, (Interaction, Head, Similarity, Loss))):
        try:
            axes = Axes(**dict(zip(("interaction", "head", "similarity", "loss"), choice, strict=True)))
        except UserError:
            continue
        accepted.add((axes.interaction, axes.head, axes.similarity, axes.loss))
    assert accepted == LEGAL


def test_the_refusal_is_one_line_that_names_what_is_legal() -> None:
    with pytest.raises(UserError) as refused:
        Axes(interaction="two_tower", head="metric", similarity="l2", loss="hinge")
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("two_tower / metric / l2 / hinge do not go together. Legal are ")
    for legal in ("one_tower / pair / none / ce|bce", "two_tower / metric / l2 / contrastive"):
        assert legal in message
