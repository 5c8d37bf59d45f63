"""GCNII on unrolled neighbourhoods: initial residual and identity mapping (Chen et al. 2020, equation 5).

Layer l at a node i with the neighbours j, its own self-loop among them, and degrees d that count both::

    s_i = (1 - alpha) * sum_j h_j / sqrt(d_i d_j) + alpha * x_i          beta = log(theta / l + 1)
    h_i = relu((1 - beta) * s_i + beta * W_l s_i)

The last layer has no relu: the states are vectors to be compared, as those of other towers are.

Own code and not torch-geometric's ``GCN2Conv``: that works on one graph with one edge list, and sampling
neighbourhoods for it needs a compiled package for every version of torch; on trees a layer is a sum over children.

Letters in shapes: m nodes of one depth, f features of a node, h hidden units, R relations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.graph.neighbourhoods import Level


@dataclass(frozen=True)
class TreeLevel:
    """``Level`` in tensors.

    Attributes:
        features: (m,) int64 rows of ``Trees.features``.
        parents: (m,) int64 places in the level above; at the roots their own.
        relations: (m,) int64 of the edge to the parent.
        degrees: (m,) float32: itself, its parent, its children.
    """

    features: Tensor
    parents: Tensor
    relations: Tensor
    degrees: Tensor

    def to(self, device: torch.device) -> TreeLevel:
        """The level on another device."""
        tensors = (self.features, self.parents, self.relations, self.degrees)
        return TreeLevel(*(tensor.to(device) for tensor in tensors))

    def part(self, rows: slice, first_parent: int) -> TreeLevel:
        """Some of the nodes, whose parents are counted from ``first_parent`` on."""
        rest = (tensor[rows] for tensor in (self.relations, self.degrees))
        return TreeLevel(self.features[rows], self.parents[rows] - first_parent, *rest)


@dataclass(frozen=True)
class Trees:
    """Unrolled neighbourhoods of n items.

    Attributes:
        features: (u, f) of the nodes in them, each once.
        levels: roots first.
    """

    features: Tensor
    levels: Sequence[TreeLevel]

    def __len__(self) -> int:
        return len(self.levels[0].features)

    @classmethod
    def of(cls, features: Tensor, levels: Sequence[Level], rows: NDArray[np.int64]) -> Trees:
        """Of levels as they were grown.

        Args:
            features: (u, f).
            levels: roots first.
            rows: of ``features`` for the nodes of all levels, one level's after the other's.
        """
        made = []
        ends = np.cumsum([len(level.features) for level in levels])
        for depth, (level, own) in enumerate(zip(levels, np.split(rows, ends[:-1]), strict=True)):
            parents = level.parents if depth else np.arange(len(own))
            degrees = (1.0 + level.counts + (depth > 0)).astype(np.float32)
            made.append(TreeLevel(*map(torch.from_numpy, (own, parents, level.relations, degrees))))
        return cls(features, made)

    def to(self, device: torch.device) -> Trees:
        """The batch on another device."""
        return Trees(self.features.to(device), [level.to(device) for level in self.levels])

    def rows(self, index: slice) -> Trees:
        """The trees of some items."""
        start, stop, _ = index.indices(len(self))
        levels = [self.levels[0].part(slice(start, stop), start)]
        for level in self.levels[1:]:
            first, last = (int(torch.searchsorted(level.parents, end)) for end in (start, stop))
            levels.append(level.part(slice(first, last), start))
            start, stop = first, last
        used, rows = torch.unique(torch.cat([level.features for level in levels]), return_inverse=True)
        parts = rows.split([len(level.features) for level in levels])
        return Trees(
            self.features[used],
            [
                TreeLevel(part, level.parents, level.relations, level.degrees)
                for part, level in zip(parts, levels, strict=True)
            ],
        )


class GCNII(nn.Module):
    """Layers of a graph network over ``Trees``.

    Attributes:
        project: features of a node to its initial state.
        layers: W of each layer.
        gates: (1 + R, h), by which what comes over an edge is multiplied, ones at first; None where edges are alike.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        layers: int,
        alpha: float,
        theta: float,
        dropout: float,
        relations: int | None,
    ) -> None:
        """Draw the weights.

        Args:
            features: f.
            hidden: h.
            layers: how many.
            alpha: share of a node's initial state in each layer.
            theta: how much a layer's matrix does; less from layer to layer.
            dropout: before each layer.
            relations: R, where edges have types.
        """
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        self.gates = None if relations is None else nn.Parameter(torch.ones(1 + relations, hidden))
        self.dropout = nn.Dropout(dropout)
        self._alpha = alpha
        self._betas = [math.log(theta / number + 1) for number in range(1, layers + 1)]

    def forward(self, trees: Trees) -> Tensor:
        """(n, h): states of the roots after as many layers as the trees have levels below them."""
        initial = functional.relu(self.project(self.dropout(trees.features)))
        starts = [functional.embedding(level.features, initial) for level in trees.levels]
        states = starts
        for beta, layer in zip(self._betas, self.layers, strict=True):
            states = [self.dropout(state) for state in states]
            mixed = [self._mix(trees.levels, states, starts, depth) for depth in range(len(states) - 1)]
            mixed = [(1 - beta) * one + beta * layer(one) for one in mixed]
            states = mixed if len(mixed) == 1 else [functional.relu(one) for one in mixed]
        roots: Tensor = self.dropout(states[0])
        return roots

    def _mix(
        self, levels: Sequence[TreeLevel], states: Sequence[Tensor], starts: Sequence[Tensor], depth: int
    ) -> Tensor:
        """``s`` of one depth; what lies deepest of ``states`` is read and not computed."""
        here, below = levels[depth], levels[depth + 1]
        weights = here.degrees.rsqrt().to(states[0].dtype)
        summed = states[depth] / here.degrees.to(states[0].dtype).unsqueeze(1)
        children = self._over_edges(below, states[depth + 1])
        children = children * (below.degrees.rsqrt().to(children.dtype) * weights[below.parents]).unsqueeze(1)
        summed = summed.index_add(0, below.parents, children)
        if depth:
            above = levels[depth - 1].degrees.rsqrt().to(weights.dtype)[here.parents]
            parents = self._over_edges(here, functional.embedding(here.parents, states[depth - 1]))
            summed = summed + parents * (above * weights).unsqueeze(1)
        mixed: Tensor = (1 - self._alpha) * summed + self._alpha * starts[depth]
        return mixed

    def _over_edges(self, level: TreeLevel, states: Tensor) -> Tensor:
        """What is sent over the edges between nodes of a level and their parents, in either direction."""
        if self.gates is None:
            return states
        return states * functional.embedding(level.relations, self.gates).to(states.dtype)
