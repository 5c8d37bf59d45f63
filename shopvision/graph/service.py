"""What a knowledge graph says of an item, as PKGM's service vectors: of what it tells, and what it has at all.

For each attribute r of an item with the vector h (Zhang et al. 2021, "Billion-scale Pre-trained E-commerce Product
Knowledge Graph Model"): the triple query ``h + r``, near to the value, and the relation query ``M h - r``, near to zero
where it has the attribute. Letters in shapes: n items, f facts, k attributes, h dimensions, E rows, R relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.graph.card import LoadedGraph
from shopvision.graph.facts import item_facts, value_name
from shopvision.graph.knowledge import ITEM, VALUE
from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key


@dataclass(frozen=True)
class ServiceNames:
    """Numbers of what a graph has a vector for, from 1 on; 0 is what it does not know.

    Attributes:
        relations: attribute -> number.
        values: value -> number of its row.
        items: id -> number of its row; empty where items have no rows of their own.
    """

    relations: Mapping[str, int]
    values: Mapping[str, int]
    items: Mapping[str, int]

    @classmethod
    def of(cls, relations: Sequence[str], entities: Sequence[str]) -> ServiceNames:
        """Of names in the order of their numbers; of names that are compared as one the first counts."""
        values: dict[str, int] = {}
        items: dict[str, int] = {}
        for number, name in enumerate(entities, start=1):
            if name.startswith(VALUE):
                values.setdefault(value_name(name.removeprefix(VALUE)), number)
            elif name.startswith(ITEM):
                items.setdefault(name.removeprefix(ITEM), number)
        known: dict[str, int] = {}
        for number, name in enumerate(relations, start=1):
            known.setdefault(attribute_key(name), number)
        return cls(known, values, items)

    def read(self, item: Item, most: int) -> KnownFacts:
        """What is known of an item.

        Args:
            item: any, in the graph or not.
            most: attributes, at most: those of the smallest numbers, which of trained graphs are the most frequent.
        """
        facts = [
            (relation, self.values.get(value, 0))
            for key, value in item_facts(item)
            if (relation := self.relations.get(key, 0))
        ]
        attributes = sorted({relation for relation, _ in facts})[:most]
        told = tuple((relation, value) for relation, value in facts if value)
        return KnownFacts(self.items.get(item.item_id, 0), tuple(attributes), told)


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """What a graph knows of an item, in numbers.

    Attributes:
        row: the item's own, 0 where it has none.
        attributes: k relations.
        told: f (relation, value).
    """

    row: int
    attributes: tuple[int, ...]
    told: tuple[tuple[int, int], ...]


class ServiceVectors(nn.Module):
    """The tables that service vectors are made from. The first row of each stands for what is not known.

    Attributes:
        entities: (E, h); the first row is what items have in common, for those that nothing is known of.
        relations: (R, h); the first row is zeros.
        matrix: (h, h), see ``GraphVectors``.
    """

    def __init__(self, entities: int, relations: int, dimension: int) -> None:
        """Tables of zeros, first rows included in their sizes."""
        super().__init__()
        tables = (torch.zeros(rows, dimension) for rows in (entities, relations, dimension))
        self.entities, self.relations, self.matrix = (nn.Parameter(table) for table in tables)

    @staticmethod
    def tensors_of(graph: LoadedGraph, *, items: bool) -> tuple[dict[str, Tensor], list[str]]:
        """The tables of a graph, and the names of the rows of entities after the first.

        Args:
            graph: trained or imported.
            items: keep the rows of items, beside those of values.
        """
        vectors, names = graph.vectors, graph.entities
        of_items = [row for row, name in enumerate(names) if name.startswith(ITEM)]
        kept = [row for row, name in enumerate(names) if items or not name.startswith(ITEM)]
        usual = functional.normalize(vectors.entities[of_items].sum(0, keepdim=True), dim=1)
        tables = {
            "entities": torch.cat([usual, vectors.entities[kept]]),
            "relations": torch.cat([torch.zeros(1, vectors.dimension), vectors.relations]),
            "matrix": vectors.matrix,
        }
        return {name: table.detach() for name, table in tables.items()}, [names[row] for row in kept]

    def items(self, rows: Tensor, told: Tensor) -> Tensor:
        """Vectors of items: their own row, or where they have none what their facts say: h is where t - r lie.

        Args:
            rows: (n,) int64; 0 where an item has none.
            told: (n, f, 2) int64 relations and values, zeros behind the last.

        Returns:
            (n, h) of unit length.
        """
        known = (told[..., 1:] > 0).to(self.entities.dtype)
        said = (self.entities[told[..., 1]] - self.relations[told[..., 0]]) * known
        nothing = (rows == 0) & (told[..., 1] == 0).all(dim=1)
        own = self.entities[rows] * ((rows > 0) | nothing).unsqueeze(1).to(self.entities.dtype)
        return functional.normalize(torch.where((rows > 0).unsqueeze(1), own, said.sum(1) + own), dim=-1)

    def forward(self, rows: Tensor, told: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Triple queries ``h + r`` and relation queries ``M h - r``.

        Args:
            rows: see ``items``.
            told: see there.
            attributes: (n, k) int64 relations, zeros behind the last.

        Returns:
            (n, k, h) and (n, k, h).
        """
        heads = self.items(rows, told)
        relations = self.relations[attributes]
        return heads.unsqueeze(1) + relations, functional.linear(heads, self.matrix).unsqueeze(1) - relations
