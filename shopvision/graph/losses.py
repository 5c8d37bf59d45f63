"""What a knowledge graph teaches: heads, moved by their relation, lie at their tails (TransE, Bordes et al. 2013).

The published recall model learnt so beside its contrastive loss (youyuge34/AVAS), with the L1 norm and a margin of 1.
The class kept there cannot run; this is what it means to compute. Letters in shapes: n triples, h dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.graph.triples import Triple

MARGIN = 1.0


def translation_distance(heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
    """How far heads, moved by their relations, are from tails: ``|h + r - t|``, L1.

    Args:
        heads: (n, h) of unit length.
        relations: (n, h) of unit length.
        tails: (n, h) of unit length.

    Returns:
        (n,).
    """
    with torch.autocast(heads.device.type, enabled=False):
        return (heads + relations - tails).abs().sum(dim=-1)


def triple_distance(heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
    """``|h + r - t|^2``: how far a triple is from being true.

    The first module of PKGM (Zhang et al. 2021), with the squared L2 norm of the published training.

    Args:
        heads: (n, h) of unit length.
        relations: (n, h).
        tails: (n, h) of unit length.

    Returns:
        (n,).
    """
    return (heads + relations - tails).square().sum(dim=-1)


def relation_distance(transferred: Tensor, relations: Tensor) -> Tensor:
    """``|M h - r|^2``: how far heads are from having a relation at all, PKGM's second module.

    Args:
        transferred: (n, h) heads, multiplied by the matrix of relations.
        relations: (n, h).

    Returns:
        (n,).
    """
    return (transferred - relations).square().sum(dim=-1)


def translation_losses(right: Tensor, corrupted: Tensor, margin: float = MARGIN) -> Tensor:
    """Of each triple ``max(0, margin + d(right) - d(corrupted))``, not summed up.

    Args:
        right: (n,) distances of triples.
        corrupted: (n,) distances of wrong triples, such as the same heads and relations with other tails.
        margin: by which wrong ones should be farther away.
    """
    return functional.relu(margin + right - corrupted)


class TailCorruption:
    """Draws wrong tails: of the same relation, so of the same kind, and never one that the graph says of the head."""

    def __init__(self, triples: Sequence[Triple]) -> None:
        """Draw among the tails of ``triples``."""
        self._triples = triples
        tails: dict[str, dict[str, int]] = defaultdict(dict)
        known: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row, triple in enumerate(triples):
            tails[triple.relation].setdefault(triple.tail, row)
            known[triple.head, triple.relation].add(triple.tail)
        self._tails = {relation: list(of.items()) for relation, of in tails.items()}
        self._known = known

    def has_wrong_tail(self, row: int) -> bool:
        """Whether there is any."""
        triple = self._triples[row]
        return len(self._known[triple.head, triple.relation]) < len(self._tails[triple.relation])

    def draw(self, rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """For each triple a row whose tail is wrong for it.

        Args:
            rows: (n,) of triples with a wrong tail, see ``has_wrong_tail``.
            generator: of the draw.
        """
        drawn = np.empty(len(rows), np.int64)
        for place, row in enumerate(rows.tolist()):
            triple = self._triples[row]
            known, tails = self._known[triple.head, triple.relation], self._tails[triple.relation]
            while True:  # a head has few tails among those of all
                tail, found = tails[int(generator.integers(len(tails)))]
                if tail not in known:
                    drawn[place] = found
                    break
        return drawn
