"""The vectors of many entities in two arrays, and which of them each item has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.selection.click.context import Entity, Vector
from shopvision.selection.click.entities import EntityFacts, EntityKey


def mean_picture(vectors: Sequence[Vector] | Vector, dimension: int) -> Vector:
    """(dimension,) mean of an entity's pictures, as published not brought to length 1; zeros where there are none."""
    if not len(vectors):
        return np.zeros(dimension, np.float32)
    mean: Vector = np.asarray(vectors, np.float32).mean(axis=0)
    return mean


@dataclass(frozen=True, eq=False)
class EntityBank:
    """Vectors of e entities.

    Attributes:
        facts: of the entities; their ``pictures`` are those that can be read.
        pictures: (e + 1, d) mean vectors of their pictures; the last row is zeros, for padding.
        names: (e + 1, d) vectors of their names, likewise.
        rows: (items, K) int64: the entities of each item, the most telling first; e is padding.
        counts: (items,) int64, how many each item has, at most K.
    """

    facts: tuple[EntityFacts, ...]
    pictures: Tensor
    names: Tensor
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]

    def features(self, items: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """(n, K, 2d) mean picture and name vectors of the entities of n items, and (n,) how many they have."""
        rows = torch.from_numpy(self.rows[items])
        counts = torch.from_numpy(self.counts[items])
        return torch.cat([self.pictures[rows], self.names[rows]], dim=2), counts

    def entities(self, items: Sequence[int]) -> list[list[Entity]]:
        """The entities of some items, as ``ImageRanker.context`` takes them."""
        pictures, names = self.pictures.numpy(), self.names.numpy()
        return [
            [
                Entity(one.entity_id, one.key.name, one.key.kind, pictures[row], names[row])
                for row in self.rows[item, : self.counts[item]].tolist()
                for one in (self.facts[row],)
            ]
            for item in items
        ]


def entity_rows(
    ordered: Mapping[int, Sequence[EntityFacts]], items: int, at_most: int
) -> tuple[list[EntityFacts], NDArray[np.int64], NDArray[np.int64]]:
    """Which entities are needed, and where.

    Args:
        ordered: row of an item -> its entities, the most telling first.
        items: how many items there are.
        at_most: how many of an item's entities are looked at.

    Returns:
        The e entities that some item needs; (items, at_most) rows of them, e where there is none; (items,) counts.
    """
    numbers: dict[EntityKey, int] = {}
    needed: list[EntityFacts] = []
    places: dict[int, list[int]] = {}
    for item, facts in ordered.items():
        for one in facts[:at_most]:
            if numbers.setdefault(one.key, len(needed)) == len(needed):
                needed.append(one)
        places[item] = [numbers[one.key] for one in facts[:at_most]]
    rows = np.full((items, at_most), len(needed), np.int64)
    counts = np.zeros(items, np.int64)
    for item, of_item in places.items():
        rows[item, : len(of_item)] = of_item
        counts[item] = len(of_item)
    return needed, rows, counts
