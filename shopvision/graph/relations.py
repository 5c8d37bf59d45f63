"""Relations as translations in the space of the vectors: what must be added to a head to come to its tail (TransE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Relation = Literal["has_category", "has_picture", "has_title", "has_attribute", "of_brand"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
WIDTH = 100


class RelationVectors(nn.Module):
    """A vector for each relation: a row of a table, through a linear layer into the space (youyuge34/AVAS).

    The table has one row more than there are relations, which stands for none.

    Attributes:
        names: of the relations, in the order of the rows.
    """

    def __init__(self, names: Sequence[str], dimension: int, width: int = WIDTH) -> None:
        """Draw the table as published: uniform in +-6/sqrt(width), then each relation's row divided by its L1 norm."""
        super().__init__()
        self.names = tuple(names)
        self.embedding = nn.Embedding(len(self.names) + 1, width)
        self.projection = nn.Linear(width, dimension)
        bound = 6 / width**0.5
        with torch.no_grad():
            nn.init.uniform_(self.embedding.weight, -bound, bound)
            rows = self.embedding.weight[:-1]
            rows.copy_(functional.normalize(rows, p=1, dim=1))

    def forward(self, relations: Tensor) -> Tensor:
        """Rows (n,) int64 -> (n, dimension) of unit length."""
        return functional.normalize(self.projection(self.embedding(relations)), dim=-1)
