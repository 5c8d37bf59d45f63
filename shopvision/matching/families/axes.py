"""The four choices that make a pair model, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from shopvision.errors import UserError

Interaction = Literal["one_tower", "two_tower"]
Similarity = Literal["none", "cosine", "inner_product", "l1", "l2"]
# Heads and losses are names that a family gives; these are the ones that families share.
Head: TypeAlias = str
Loss: TypeAlias = str

LegalAxes: TypeAlias = Mapping[tuple[Head, Similarity], tuple[Loss, ...]]
"""(head, similarity) -> the losses that fit, of a family."""

ONE_TOWER_AXES: LegalAxes = {("pair", "none"): ("ce", "bce")}
# A margin on a similarity has the wrong sign for a distance; a distance never says "impossible to be nearer than this",
# which a softmax over candidates needs no less than a sigmoid.
TWO_TOWER_AXES: LegalAxes = {
    ("interaction", "none"): ("ce", "bce"),
    ("additive", "none"): ("ce", "bce"),
    ("metric", "cosine"): ("cosine", "hinge", "bce", "contrastive", "mnr"),
    ("metric", "inner_product"): ("bce", "hinge", "mnr"),
    ("metric", "l1"): ("contrastive",),
    ("metric", "l2"): ("contrastive",),
}


class Axes(BaseModel):
    """Interaction, head, similarity and loss of a pair model. Which go together is said by its family's ``LegalAxes``.

    Shared by the families with one tower and with two:

    ==========  ===========  =============  =======================================
    interaction head         similarity     losses
    ==========  ===========  =============  =======================================
    one_tower   pair         none           ce, bce
    two_tower   interaction  none           ce, bce
    two_tower   additive     none           ce, bce (parity only: see AdditiveHead)
    two_tower   metric       cosine         cosine, hinge, bce, contrastive, mnr
    two_tower   metric       inner_product  bce, hinge, mnr
    two_tower   metric       l1, l2         contrastive
    ==========  ===========  =============  =======================================

    Attributes:
        interaction: ``one_tower`` reads both items as one and scores the pair; ``two_tower`` gives each item a vector
            that can be kept.
        head: what turns states or vectors into the log-odds of "same".
        similarity: of the metric head.
        loss: what training minimises.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    interaction: Interaction
    head: Head
    similarity: Similarity = "none"
    loss: Loss


def require_legal(axes: Axes, legal: LegalAxes, family: str) -> None:
    """Refuse choices that do not go together.

    Raises:
        UserError: the family has no such combination; the message names those that it has.
    """
    if axes.loss not in legal.get((axes.head, axes.similarity), ()):
        allowed = ", ".join(f"{' / '.join(choice)} / {'|'.join(losses)}" for choice, losses in legal.items())
        raise UserError(
            f"{axes.head} / {axes.similarity} / {axes.loss} (head, similarity, loss) do not go together in {family}. "
            f"Legal are {allowed}."
        )
