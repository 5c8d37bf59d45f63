"""Folds of labelled pairs for cross-fitting: what is held out shares no item with what is learnt from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.items.pair_table import PairTable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Rows of a table: no item of ``held_out`` is in a pair of ``learn``.

    Attributes:
        learn: (n,) rising.
        held_out: (m,) rising; the share of pairs labelled 1 is that of the whole table.
    """

    learn: Rows
    held_out: Rows


def item_folds(table: PairTable, count: int, seed: int) -> list[Fold]:
    """Deal the items out to folds, products whole, so that few pairs reach from one fold into another.

    Items that pairs connect stay together where they are few. Where pairs connect nearly all (every item beside some
    neighbours), products, which are items that pairs labelled 1 connect, go to the fold that holds most of their
    neighbours and has room (linear deterministic greedy, Stanton and Kliot 2012). Pairs that reach from one fold into
    another are learnt from by the models of third folds, and held out by none. They are all labelled 0, so of the pairs
    labelled 1 as many are left out of ``held_out`` at random: else they would make precision look better than it is.

    Args:
        table: pairs of both labels.
        count: folds, at least 2.
        seed: of what is drawn.

    Raises:
        UserError: a fold would learn from, or hold out, pairs of one label only.
    """
    generator = np.random.default_rng(seed)
    fold_of = _dealt(table, count, generator)
    left, right = fold_of[table.left], fold_of[table.right]
    within = left == right
    positive = table.labels == 1
    kept = np.flatnonzero(within & positive)
    wanted = round(len(kept) * int((within & ~positive).sum()) / max(int((~positive).sum()), 1))
    measured = within & ~positive
    measured[generator.permutation(kept)[:wanted]] = True
    folds = [
        Fold(np.flatnonzero((left != number) & (right != number)), np.flatnonzero(measured & (left == number)))
        for number in range(count)
    ]
    for fold in folds:
        if any(len(np.unique(table.labels[rows])) < 2 for rows in (fold.learn, fold.held_out)):
            raise UserError(
                f"{len(table):,} pairs cannot be dealt out to {count} folds that share no item and hold both labels: "
                "take fewer folds, or give more pairs."
            )
    return folds


def _dealt(table: PairTable, count: int, generator: np.random.Generator) -> Rows:
    """(items,) the fold of each item."""
    product = _connected(table, table.labels == 1)
    component = _connected(table, np.ones(len(table), np.bool_))
    pairs_of = np.bincount(component[table.left], minlength=component.max() + 1)
    room = len(table) / count
    # Of what fits into a fold whole, the component is dealt; of what does not, its products.
    fits = pairs_of[component] <= room
    _, unit = np.unique(np.where(fits, component, product + len(pairs_of)), return_inverse=True)
    ends = unit[table.left], unit[table.right]
    sizes = np.bincount(np.concatenate(ends), minlength=unit.max() + 1) / 2
    neighbours: defaultdict[int, list[int]] = defaultdict(list)
    for one, other in zip(*(end.tolist() for end in ends), strict=True):
        if one != other:
            neighbours[one].append(other)
            neighbours[other].append(one)
    fold = np.full(len(sizes), -1)
    filled = np.zeros(count)
    for number in np.lexsort((generator.permutation(len(sizes)), -sizes)).tolist():
        beside = fold[neighbours[number]]
        links = np.bincount(beside[beside >= 0], minlength=count)
        free = np.maximum(1 - filled / room, 0)
        fold[number] = np.lexsort((filled, -links * free))[0]
        filled[fold[number]] += sizes[number]
    return fold[unit]


def _connected(table: PairTable, chosen: NDArray[np.bool_]) -> Rows:
    """(items,) number of each item's component among the chosen pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array(
        (np.ones(int(chosen.sum()), np.int8), (table.left[chosen], table.right[chosen])), shape=(len(table.items),) * 2
    )
    components: Rows = connected_components(edges, directed=False)[1].astype(np.int64)
    return components
