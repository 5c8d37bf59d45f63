"""Triples of the knowledge graph as a step of training takes them: by the rows of texts and pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shopvision.errors import UserError
from shopvision.graph.losses import TailCorruption
from shopvision.graph.triples import Triple

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch
    from shopvision.selection.recall.inputs import Inputs


@dataclass(frozen=True)
class GraphBatch:
    """One process's g triples of a step, and as many with another tail.

    Attributes:
        heads: of g texts.
        text_tails: of those tails that are texts; None where none is.
        picture_tails: of those that are pictures; None where none is.
        order: (2 g,) where the tail of each triple, then of each corrupted one, lies in text tails and picture tails
            put together.
        relations: (g,) rows.
    """

    heads: TokenBatch | Tensor
    text_tails: TokenBatch | Tensor | None
    picture_tails: Tensor | None
    order: Tensor
    relations: Tensor


class GraphSampler:
    """Draws triples with their corruptions."""

    def __init__(
        self,
        triples: Sequence[Triple],
        relations: Sequence[str],
        texts: Mapping[str, int],
        pictures: Mapping[str, int],
        *,
        batch: int,
        seed: int,
    ) -> None:
        """Draw ``batch`` triples a step.

        Args:
            triples: of training alone.
            relations: in the order of the model's rows.
            texts: text -> row.
            pictures: address -> row.
            batch: over all processes.
            seed: of the draws.

        Raises:
            UserError: no triple could be corrupted.
        """
        self._corruption = TailCorruption(triples)
        self._usable = np.array([row for row in range(len(triples)) if self._corruption.has_wrong_tail(row)], np.int64)
        if not len(self._usable):
            raise UserError(
                f"Of {len(triples):,} triples none has a wrong tail: a relation with one tail says nothing. Add some, "
                "or set graph.weight = 0."
            )
        self._heads = np.array([texts[triple.head] for triple in triples])
        self._relations = np.array([relations.index(triple.relation) for triple in triples])
        self._is_picture = np.array([triple.tail_kind == "picture" for triple in triples])
        self._tails = np.array(
            [(pictures if triple.tail_kind == "picture" else texts)[triple.tail] for triple in triples]
        )
        self._batch, self._seed = batch, seed

    def load(self, inputs: Inputs, epoch: int, number: int, share: slice) -> GraphBatch:
        """The share of one process of a step; drawn for the whole step, so that more processes see the same."""
        generator = np.random.default_rng([self._seed, epoch, number, 1])
        rows = self._usable[generator.integers(len(self._usable), size=self._batch)]
        wrong = self._corruption.draw(rows, generator)
        crops = generator.random((2 * self._batch, 2))
        rows, tails = rows[share], np.concatenate([rows[share], wrong[share]])
        crops = np.concatenate([crops[: self._batch][share], crops[self._batch :][share]])
        shown = self._is_picture[tails]
        order = np.empty(len(tails), np.int64)
        order[~shown], order[shown] = np.arange((~shown).sum()), (~shown).sum() + np.arange(shown.sum())
        return GraphBatch(
            inputs.texts(self._heads[rows]),
            inputs.texts(self._tails[tails[~shown]]) if not shown.all() else None,
            inputs.pictures(self._tails[tails[shown]], crops[shown]) if shown.any() else None,
            torch.from_numpy(order),
            torch.from_numpy(self._relations[rows]),
        )


def learnt_triples(triples: Iterable[Triple], texts: Collection[str], pictures: Collection[str]) -> list[Triple]:
    """The triples that say nothing of validation.

    Args:
        triples: of a file or of items.
        texts: of validation.
        pictures: of validation.
    """
    held_out = {"text": set(texts), "picture": set(pictures)}
    return [
        triple
        for triple in triples
        if triple.head not in held_out["text"] and triple.tail not in held_out[triple.tail_kind]
    ]
