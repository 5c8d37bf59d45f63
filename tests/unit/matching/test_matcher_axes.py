"""Which interactions, heads, similarities and losses go together: all 240 combinations of the shared ones."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from shopvision.errors import UserError
from shopvision.matching.families.axes import (
    ONE_TOWER_AXES,
    TWO_TOWER_AXES,
    Axes,
    Interaction,
    LegalAxes,
    Similarity,
    require_legal,
)

LEGAL = {
    *(("one_tower", "pair", "none", loss) for loss in ("ce", "bce")),
    *(("two_tower", head, "none", loss) for head in ("interaction", "additive") for loss in ("ce", "bce")),
    *(("two_tower", "metric", "cosine", loss) for loss in ("cosine", "hinge", "bce", "contrastive", "mnr")),
    *(("two_tower", "metric", "inner_product", loss) for loss in ("bce", "hinge", "mnr")),
    ("two_tower", "metric", "l1", "contrastive"),
    ("two_tower", "metric", "l2", "contrastive"),
}


HEADS = ("pair", "interaction", "additive", "metric")
LOSSES = ("ce", "bce", "cosine", "contrastive", "hinge", "mnr")
SHARED: dict[str, LegalAxes] = {"one_tower": ONE_TOWER_AXES, "two_tower": TWO_TOWER_AXES}


def test_legal_combinations_and_no_others() -> None:
    accepted = set()
    for interaction, head, similarity, loss in product(get_args(Interaction), HEADS, get_args(Similarity), LOSSES):
        axes = Axes(interaction=interaction, head=head, similarity=similarity, loss=loss)
        try:
            require_legal(axes, SHARED[interaction], "a family")
        except UserError:
            continue
        accepted.add((axes.interaction, axes.head, axes.similarity, axes.loss))
    assert accepted == LEGAL


def test_the_refusal_is_one_line_that_names_what_is_legal() -> None:
    axes = Axes(interaction="two_tower", head="metric", similarity="l2", loss="hinge")
    with pytest.raises(UserError) as refused:
        require_legal(axes, TWO_TOWER_AXES, "text_two_tower")
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(
        "metric / l2 / hinge (head, similarity, loss) do not go together in text_two_tower. Legal"
    )
    for legal in ("interaction / none / ce|bce", "metric / l2 / contrastive"):
        assert legal in message
