"""Link prediction: which value does an item have under a key? Filtered ranks of the right one among all values.

Letters in shapes: n triples, m candidates, h dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import digamma
from torch import Tensor

from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure
from shopvision.evaluation.ranking_metrics import random_reciprocal_rank
from shopvision.graph.vectors import GraphVectors

KS = (1, 3, 10)
_AT_ONCE = 256  # queries: 100,000 candidates make 100 MB of similarities

Ints = NDArray[np.int64]


class LinkTask:
    """Triples (h, r, ?) whose tails are looked for among the tails of all triples."""

    def __init__(self, triples: Ints, rows: Ints) -> None:
        """Ask for the tails of some triples.

        Args:
            triples: (all, 3). What they know of a head and a relation beside the tail that is asked for is right too,
                and is no candidate (the filtered setting of Bordes et al. 2013).
            rows: (n,) which of them to ask for.
        """
        self.asked = triples[rows]
        self.candidates = np.unique(triples[:, 2])
        queries = triples[:, 0] * (triples[:, 1].max() + 1) + triples[:, 1]
        order = np.argsort(queries, kind="stable")
        first, last = (np.searchsorted(queries[order], queries[rows], side=side) for side in ("left", "right"))
        self.right = np.searchsorted(self.candidates, self.asked[:, 2])
        known = [np.searchsorted(self.candidates, triples[order[a:b], 2]) for a, b in zip(first, last, strict=True)]
        self._others = [tails[tails != own] for tails, own in zip(known, self.right.tolist(), strict=True)]
        self._sizes = len(self.candidates) - np.array([len(others) for others in self._others], np.int64)

    @torch.no_grad()
    def ranks(self, vectors: GraphVectors) -> Ranks:
        """Where the right tails stand. Of a triple's distance only ``|h + r - t|^2`` depends on its tail."""
        device = vectors.entities.device
        tails = vectors.entities[torch.from_numpy(self.candidates).to(device)]
        lengths = tails.square().sum(1)
        better, tied = (np.empty(len(self.asked), np.int64) for _ in range(2))
        for start in range(0, len(self.asked), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            heads, relations = (torch.from_numpy(self.asked[rows, place]).to(device) for place in (0, 1))
            near = 2 * (vectors.entities[heads] + vectors.relations[relations]) @ tails.T - lengths
            own = torch.from_numpy(self.right[rows]).to(device)
            value = near[torch.arange(len(own), device=device), own].unsqueeze(1)
            better[rows], tied[rows] = self._count(near, value, self._others[rows])
        return Ranks(better, tied, self._sizes)

    @staticmethod
    def _count(near: Tensor, value: Tensor, others: list[Ints]) -> tuple[Ints, Ints]:
        row = np.repeat(np.arange(len(others)), [len(one) for one in others])
        column = np.concatenate([np.zeros(0, np.int64), *others])
        near[torch.from_numpy(row).to(near.device), torch.from_numpy(column).to(near.device)] = -torch.inf
        return (near > value).sum(1).cpu().numpy(), (near == value).sum(1).cpu().numpy()


@dataclass(frozen=True)
class Ranks:
    """Filtered ranks of n right tails.

    Attributes:
        better: (n,) candidates nearer than the right one.
        tied: (n,) candidates as near, itself among them.
        sizes: (n,) candidates.
    """

    better: Ints
    tied: Ints
    sizes: Ints

    def measured(self, *, resamples: int = RESAMPLES) -> dict[str, Measured]:
        """``mrr`` and ``hits_K``, ties in any order, beside what chance gives."""
        best, worst = self.better + 1, self.better + self.tied
        ks = np.array(KS)[None, :]
        mrr = (digamma(worst + 1.0) - digamma(best)) / self.tied
        hits = np.clip((ks - self.better[:, None]) / self.tied[:, None], 0.0, 1.0)
        chance = np.minimum(ks, self.sizes[:, None]) / self.sizes[:, None]
        values = np.column_stack([mrr, hits])
        random = np.column_stack([random_reciprocal_rank(self.sizes), chance])
        names = ("mrr", *(f"hits_{k}" for k in KS))
        return dict(zip(names, measure(values, random, resamples=resamples), strict=True))
