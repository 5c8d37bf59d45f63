"""Neighbourhoods of items in a graph of items and values, with at most so many neighbours of each node.

An item's neighbours are its values (brand, category, attributes), a value's those items that have it. What is around an
item is unrolled as a tree: the item, its values, other items with these, their values, ... As many layers of a graph
network as the tree is deep give the item the same state as on the whole graph, as long as a node's own parent is among
its neighbours; and memory depends on the tree alone. A new item is the root of such a tree like any other: nothing has
to know it beforehand. With more than two layers ways lead back to it that are not there, as no value is known to have
it.

Letters in shapes: N nodes, E edges, n items, m nodes of one depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from shopvision.graph.facts import Fact, item_facts
from shopvision.items.item import Item

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ItemValueGraph:
    """Items and values, each with at most ``most`` neighbours in an order that was drawn once.

    Attributes:
        items: their ids; item i is node i.
        values: their texts; value v is node ``len(items) + v``.
        relations: attributes; relation r is number ``1 + r`` at edges, 0 is one that is not known.
        starts: (N + 1,) where a node's neighbours start.
        neighbours: (E,) nodes.
        edges: (E,) numbers of relations.
    """

    items: tuple[str, ...]
    values: tuple[str, ...]
    relations: tuple[str, ...]
    starts: Ints
    neighbours: Ints
    edges: Ints
    _node_of_item: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _node_of_value: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _number_of_relation: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first = len(self.items)
        object.__setattr__(self, "_node_of_item", {name: node for node, name in enumerate(self.items)})
        object.__setattr__(self, "_node_of_value", {name: first + node for node, name in enumerate(self.values)})
        object.__setattr__(self, "_number_of_relation", {name: 1 + row for row, name in enumerate(self.relations)})

    def __len__(self) -> int:
        return len(self.items) + len(self.values)

    @classmethod
    def of_items(cls, items: Sequence[Item], most: int, seed: int) -> ItemValueGraph:
        """The graph of some items, each id once.

        Args:
            items: whose neighbourhoods are known.
            most: neighbours of a node that are kept, drawn where there are more.
            seed: of the draw.
        """
        once = list({item.item_id: item for item in items}.values())
        facts = [_edges(item) for item in once]
        values = {text: node for node, text in enumerate(dict.fromkeys(v for said in facts for _, v in said))}
        relations = {key: 1 + row for row, key in enumerate(sorted({key for said in facts for key, _ in said}))}
        of_item = np.repeat(np.arange(len(once)), [len(said) for said in facts])
        said = list(chain.from_iterable(facts))
        of_value = np.fromiter((len(once) + values[value] for _, value in said), np.int64, len(said))
        edge = np.fromiter((relations[key] for key, _ in said), np.int64, len(said))
        ends = np.concatenate([np.stack([of_item, of_value]), np.stack([of_value, of_item])], axis=1)
        starts, kept = _kept(ends[0], len(once) + len(values), most, seed)
        return cls(
            tuple(item.item_id for item in once),
            tuple(values),
            tuple(relations),
            starts,
            ends[1][kept],
            np.tile(edge, 2)[kept],
        )

    def root(self, item: Item, most: int) -> Root:
        """An item as the root of a tree, whether the graph knows it or not.

        Args:
            item: any.
            most: values, at most.
        """
        facts = _edges(item)[:most]
        return Root(
            self._node_of_item.get(item.item_id, -1),
            tuple(self._node_of_value.get(value, -1) for _, value in facts),
            tuple(value for _, value in facts),
            tuple(self._number_of_relation.get(key, 0) for key, _ in facts),
        )

    def below(self, nodes: Ints, parents: Ints, most: int) -> tuple[Ints, Ints, Ints]:
        """Neighbours of nodes without the parent that each was come to by.

        Args:
            nodes: (m,); those that the graph does not know (-1) have none.
            parents: (m,) nodes, -1 where the graph does not know them.
            most: of each node, at most.

        Returns:
            (m,) how many each has; their nodes, one node's after the other's, and the relations to them.
        """
        known = np.maximum(nodes, 0)
        counts = np.where(nodes < 0, 0, self.starts[known + 1] - self.starts[known])
        owner = np.repeat(np.arange(len(nodes)), counts)
        places = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + self.starts[known][owner]
        others = self.neighbours[places] != parents[owner]
        owner, places = owner[others], places[others]
        counts = np.bincount(owner, minlength=len(nodes))
        fits = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) < most
        owner, places = owner[fits], places[fits]
        return np.bincount(owner, minlength=len(nodes)), self.neighbours[places], self.edges[places]


@dataclass(frozen=True, slots=True)
class Root:
    """An item and what it tells.

    Attributes:
        node: the item's own, -1 where the graph does not know it.
        values: nodes of its values, -1 likewise.
        texts: of its values.
        relations: numbers of the attributes they stand under.
    """

    node: int
    values: tuple[int, ...]
    texts: tuple[str, ...]
    relations: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """All nodes of one depth of n trees, in the order of their parents.

    Attributes:
        features: (m,) int64, whose features each has: a row that the reader numbers.
        parents: (m,) int64 places in the level above; empty at the roots.
        counts: (m,) int64 nodes below each; of the last level those that it would have.
        relations: (m,) int64 of the edge to the parent; 0 at the roots.
    """

    features: Ints
    parents: Ints
    counts: Ints
    relations: Ints


def grow(graph: ItemValueGraph, roots: Sequence[Root], rows: Sequence[int], *, depth: int, most: int) -> list[Level]:
    """Trees of ``depth`` levels below their roots.

    Args:
        graph: what is known.
        roots: n.
        rows: n, features of each root, N and after, so that they are told from nodes. Those of values that the graph
            does not know follow: ``rows[i] + 1`` is the first of item i, in the order of ``Root.values``.
        depth: as many as the network has layers.
        most: neighbours of a node, at most.
    """
    nodes = np.fromiter((root.node for root in roots), np.int64, len(roots))
    counts = np.fromiter((len(root.values) for root in roots), np.int64, len(roots))
    none = np.zeros(0, np.int64)
    levels = [Level(np.asarray(rows, np.int64), none, counts, np.zeros(len(roots), np.int64))]
    parents = np.repeat(np.arange(len(roots)), counts)
    below = np.fromiter(chain.from_iterable(root.values for root in roots), np.int64, int(counts.sum()))
    relations = np.fromiter(chain.from_iterable(root.relations for root in roots), np.int64, len(below))
    features = below.copy()
    new = below < 0
    order = np.cumsum(new) - 1  # the how-manieth new value, over all
    first = np.cumsum(np.bincount(parents[new], minlength=len(roots))) - np.bincount(parents[new], minlength=len(roots))
    features[new] = np.asarray(rows, np.int64)[parents[new]] + 1 + order[new] - first[parents[new]]
    for level in range(1, depth + 1):
        # The parent is a neighbour too: one fewer below.
        counts, next_nodes, next_relations = graph.below(below, nodes[parents], most - 1)
        levels.append(Level(features, parents, counts, relations))
        if level == depth:
            break
        parents, nodes, below = np.repeat(np.arange(len(below)), counts), below, next_nodes
        relations, features = next_relations, next_nodes
    return levels


def _edges(item: Item) -> list[Fact]:
    """Facts of an item without further attributes of one value: an item and a value are neighbours once."""
    once: dict[str, str] = {}
    for key, value in item_facts(item):
        once.setdefault(value, key)
    return [(key, value) for value, key in once.items()]


def _kept(ends: Ints, nodes: int, most: int, seed: int) -> tuple[Ints, Ints]:
    """Where the kept edges of each node start, and which they are, in drawn order."""
    drawn = np.random.default_rng(seed).permutation(len(ends))
    order = drawn[np.argsort(ends[drawn], kind="stable")]
    counts = np.bincount(ends, minlength=nodes)
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[within < most]
    starts = np.concatenate([[0], np.cumsum(np.minimum(counts, most))]).astype(np.int64)
    return starts, kept
