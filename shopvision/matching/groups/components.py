"""Groups of equal items from scored pairs: connected components that no confident difference runs through.

Plain connected components settle almost all items at once (vectorised). Only where a component holds two items that
must stay apart, two of one source where that is not wanted, or too many, its edges are joined one by one, the surest
first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.int32]
Mask = NDArray[np.bool_]

BLOCK = 1 << 16  # edges that are Python objects at one time


@dataclass(frozen=True)
class SameEdges:
    """Pairs that a model or a person calls the same; items are numbers, arrays of shape (pairs,).

    Attributes:
        probability: float32.
        reviewed: a person said so.
    """

    left: Numbers
    right: Numbers
    probability: NDArray[np.float32]
    reviewed: Mask

    def select(self, rows: Mask | NDArray[np.int64]) -> SameEdges:
        """These rows."""
        return SameEdges(self.left[rows], self.right[rows], self.probability[rows], self.reviewed[rows])


@dataclass(frozen=True)
class DifferentEdges:
    """Pairs that must stay apart; shape (pairs,). A person's word (``reviewed``) is above that of a model."""

    left: Numbers
    right: Numbers
    reviewed: Mask


@dataclass(frozen=True)
class Grouping:
    """What became of the items and of the pairs.

    Attributes:
        groups: (items,) number of the item's group, -1 for an item without equals. Groups are numbered in the order of
            their smallest items.
        refused: (conflicts,) int64, ascending rows of ``same`` whose items ended in two groups.
        reasons: (conflicts,) int8: ``DIFFERENT``, two of their members differ; ``SAME_SOURCE``, two come from one;
            ``TOO_LARGE``.
    """

    groups: Numbers
    refused: NDArray[np.int64]
    reasons: NDArray[np.int8]

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.groups.max(initial=-1)) + 1


def connected_items(items: int, same: SameEdges) -> Numbers:
    """(items,) int32 number of the connected component of each of ``items`` items."""
    graph = coo_array((np.ones(len(same.left), np.int8), (same.left, same.right)), shape=(items, items))
    labels: Numbers = connected_components(graph, directed=False)[1]
    return labels


def group_items(
    labels: Numbers, same: SameEdges, different: DifferentEdges, max_size: int, sources: Numbers | None = None
) -> Grouping:
    """Constrained connected components; the order of the rows does not matter.

    A union is refused that would bring together two items of ``different``, two of one source, or more than
    ``max_size`` items. What people called the same is joined first, and only another person's "different" and the size
    stand against it; then the models' pairs follow by falling probability, ties by item number.

    Args:
        labels: (items,) of ``connected_items``.
        same: no pair twice.
        different: those between two components say nothing.
        max_size: at least 2.
        sources: (items,) number of the source of which a group holds one item at most, -1 for an item that may be with
            any; None where sources are no matter.
    """
    items, components = len(labels), int(labels.max(initial=-1)) + 1
    hard = np.bincount(labels, minlength=components) > max_size
    if sources is not None:
        hard[_with_a_source_twice(labels, sources)] = True
    hard[labels[different.left[labels[different.left] == labels[different.right]]]] = True
    rows = np.flatnonzero(hard[labels[same.left]])
    members = np.flatnonzero(hard[labels])
    if not len(rows):
        return Grouping(_numbered(labels), rows, np.zeros(0, np.int8))
    rows = rows[_surest_first(same.select(rows))]
    inside = hard[labels[different.left]] & (labels[different.left] == labels[different.right])
    place = np.full(items, -1, np.int32)  # among the items of hard components
    place[members] = np.arange(len(members), dtype=np.int32)
    chosen = same.select(rows)
    forest = _Forest(len(members), max_size)
    reasons = np.empty(len(rows), np.int8)
    by_people = int(chosen.reviewed.sum())
    for reviewed, span in ((True, slice(0, by_people)), (False, slice(by_people, len(rows)))):
        apart = inside & (different.reviewed == reviewed)
        forest.keep_apart(place[different.left[apart]], place[different.right[apart]])
        if sources is not None and not reviewed:
            forest.keep_sources_apart(sources[members])
        reasons[span] = forest.join(place[chosen.left[span]], place[chosen.right[span]])
    labels = labels.astype(np.int64)
    labels[members] = components + forest.roots()
    order = np.argsort(rows)
    order = order[reasons[order] != JOINED]
    return Grouping(_numbered(labels), rows[order], reasons[order])


def assign_ids(groups: Numbers, former: Numbers) -> Numbers:
    """Which former group each group continues: the one with which it shares most members.

    Each former group is continued once: of the parts of a split the largest keeps the id, and a merged group bears the
    id of its largest part. Ties go to the smaller number of the former group, then of the group.

    Args:
        groups: (items,) number of the item's group, -1 for none.
        former: (items,) number of its former group, the oldest first; -1 for none.

    Returns:
        (groups,) int32: number of the former group, -1 for a group that is new.
    """
    result = np.full(int(groups.max(initial=-1)) + 1, -1, np.int32)
    both = (groups >= 0) & (former >= 0)
    width = int(former.max(initial=-1)) + 1
    cells, shared = np.unique(groups[both].astype(np.int64) * width + former[both], return_counts=True)
    news, olds = cells // max(width, 1), cells % max(width, 1)
    taken = np.zeros(width, bool)
    for index in np.lexsort((news, olds, -shared)):
        new, old = news[index], olds[index]
        if result[new] < 0 and not taken[old]:
            result[new] = old
            taken[old] = True
    return result


def _surest_first(edges: SameEdges) -> NDArray[np.int64]:
    left, right = np.minimum(edges.left, edges.right), np.maximum(edges.left, edges.right)
    return np.lexsort((right, left, -edges.probability, ~edges.reviewed))


def _numbered(labels: NDArray[np.integer]) -> Numbers:
    """Labels as group numbers by first member; -1 where a label occurs once."""
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    several = sizes > 1
    numbers = np.full(len(first), -1, np.int32)
    ordered = np.flatnonzero(several)[np.argsort(first[several])]
    numbers[ordered] = np.arange(len(ordered), dtype=np.int32)
    return numbers[inverse]


def _with_a_source_twice(labels: Numbers, sources: Numbers) -> Numbers:
    """Components that hold two items of one source."""
    known = sources >= 0
    width = int(sources.max(initial=-1)) + 1
    cells, items = np.unique(labels[known].astype(np.int64) * width + sources[known], return_counts=True)
    return np.asarray(cells[items > 1] // max(width, 1), np.int32)


JOINED, DIFFERENT, SAME_SOURCE, TOO_LARGE = range(4)


class _Forest:
    """Disjoint sets that refuse some unions. Each set knows the sets that it must stay apart from."""

    def __init__(self, items: int, max_size: int) -> None:
        self._parent = list(range(items))
        self._size = [1] * items
        self._enemies: defaultdict[int, set[int]] = defaultdict(set)
        self._sources: dict[int, set[int]] = {}  # of sets with an item of a source
        self._max_size = max_size

    def keep_apart(self, left: Numbers, right: Numbers) -> None:
        """From now on; items that are together already stay so."""
        for start in range(0, len(left), BLOCK):
            end = start + BLOCK
            for one, other in zip(left[start:end].tolist(), right[start:end].tolist(), strict=True):
                a, b = self._root(one), self._root(other)
                if a != b:
                    self._enemies[a].add(b)
                    self._enemies[b].add(a)

    def keep_sources_apart(self, sources: Numbers) -> None:
        """From now on; ``sources`` are those of all items, -1 for none."""
        for item, source in enumerate(sources.tolist()):
            if source >= 0:
                self._sources.setdefault(self._root(item), set()).add(source)

    def join(self, left: Numbers, right: Numbers) -> NDArray[np.int8]:
        """One union after the other; returns JOINED, or why it was refused, for each."""
        reasons = bytearray(len(left))
        root, size, enemies, max_size = self._root, self._size, self._enemies, self._max_size
        sources, none = self._sources, frozenset[int]()
        for start in range(0, len(left), BLOCK):
            end = start + BLOCK
            pairs = zip(left[start:end].tolist(), right[start:end].tolist(), strict=True)
            for row, (one, other) in enumerate(pairs, start):
                a, b = root(one), root(other)
                if a == b:
                    continue
                if a in enemies and b in enemies[a]:
                    reasons[row] = DIFFERENT
                elif not sources.get(a, none).isdisjoint(sources.get(b, none)):
                    reasons[row] = SAME_SOURCE
                elif size[a] + size[b] > max_size:
                    reasons[row] = TOO_LARGE
                else:
                    self._unite(a, b)
        return np.frombuffer(reasons, np.int8)

    def roots(self) -> NDArray[np.int64]:
        """The set of each item."""
        return np.fromiter(map(self._root, range(len(self._parent))), np.int64, len(self._parent))

    def _root(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    def _unite(self, a: int, b: int) -> None:
        enemies = self._enemies
        if self._size[a] < self._size[b]:
            a, b = b, a
        self._parent[b] = a
        self._size[a] += self._size[b]
        if sources := self._sources.pop(b, None):
            self._sources.setdefault(a, set()).update(sources)
        for other in enemies.pop(b, ()):
            enemies[other].discard(b)
            enemies[other].add(a)
            enemies[a].add(other)
