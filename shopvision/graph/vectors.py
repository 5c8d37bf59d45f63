"""What is learnt of a knowledge graph: a vector for each entity and each relation, and PKGM's matrix of relations.

Letters in shapes: E entities, R relations, h dimensions, n triples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.graph.losses import relation_distance, triple_distance


class GraphVectors(nn.Module):
    """The tables.

    Attributes:
        entities: (E, h), rows of unit length.
        relations: (R, h), of unit length at first.
        matrix: (h, h): ``M h`` is near to the relations that an entity has. One for all relations, as in the published
            training; the paper has one for each.
    """

    def __init__(self, entities: int, relations: int, dimension: int) -> None:
        """Draw the tables: Xavier uniform, rows then brought to unit length."""
        super().__init__()
        tables = (torch.empty(rows, dimension) for rows in (entities, relations, dimension))
        self.entities, self.relations, self.matrix = (nn.Parameter(nn.init.xavier_uniform_(table)) for table in tables)
        with torch.no_grad():
            for table in (self.entities, self.relations):
                table.copy_(functional.normalize(table, dim=1))

    @property
    def dimension(self) -> int:
        """H."""
        return self.matrix.shape[0]

    def transfer(self, heads: Tensor) -> Tensor:
        """``M h`` of (n, h)."""
        return functional.linear(heads, self.matrix)

    def distances(self, triples: Tensor) -> Tensor:
        """PKGM's ``|h + r - t|^2 + |M h - r|^2`` of (n, 3) int64 heads, relations, tails: (n,)."""
        heads, tails = self.entities[triples[:, 0]], self.entities[triples[:, 2]]
        relations = self.relations[triples[:, 1]]
        return triple_distance(heads, relations, tails) + relation_distance(self.transfer(heads), relations)
