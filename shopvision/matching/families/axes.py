"""The four choices that make a pair model, and which of them go together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from shopvision.errors import UserError

Interaction = Literal["one_tower", "two_tower"]
Head = Literal["pair", "interaction", "additive", "metric"]
Similarity = Literal["none", "cosine", "inner_product", "l1", "l2"]
Loss = Literal["ce", "bce", "cosine", "contrastive", "hinge", "mnr"]

# (interaction, head, similarity) -> the losses that fit. A margin on a similarity has the wrong sign for a distance; a
# distance never says "impossible to be nearer than this", which a softmax over candidates needs no less than a sigmoid.
LEGAL: dict[tuple[Interaction, Head, Similarity], tuple[Loss, ...]] = {
    ("one_tower", "pair", "none"): ("ce", "bce"),
    ("two_tower", "interaction", "none"): ("ce", "bce"),
    ("two_tower", "additive", "none"): ("ce", "bce"),
    ("two_tower", "metric", "cosine"): ("cosine", "hinge", "bce", "contrastive", "mnr"),
    ("two_tower", "metric", "inner_product"): ("bce", "hinge", "mnr"),
    ("two_tower", "metric", "l1"): ("contrastive",),
    ("two_tower", "metric", "l2"): ("contrastive",),
}


class Axes(BaseModel):
    """Interaction, head, similarity and loss of a pair model; checked when made.

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
        interaction: ``one_tower`` reads both items as one sequence and scores the pair; ``two_tower`` gives each item a
            vector that can be kept.
        head: what turns states or vectors into the log-odds of "same".
        similarity: of the metric head.
        loss: what training minimises.

    Raises:
        UserError: the four do not go together; the message names those that do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    interaction: Interaction
    head: Head
    similarity: Similarity = "none"
    loss: Loss

    @model_validator(mode="after")
    def _go_together(self) -> Axes:
        if self.loss not in LEGAL.get((self.interaction, self.head, self.similarity), ()):
            raise UserError(
                f"{self.interaction} / {self.head} / {self.similarity} / {self.loss} do not go together. "
                f"Legal are {legal_combinations()}."
            )
        return self


def legal_combinations() -> str:
    """All legal combinations in one line: ``one_tower / pair / none / ce|bce, ...``."""
    return ", ".join(f"{' / '.join(choice)} / {'|'.join(losses)}" for choice, losses in LEGAL.items())
