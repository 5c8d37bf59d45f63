"""Training, validation and test pairs that share no item, and what is seen in training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.items.pair_table import PairTable


def split_by_component(table: PairTable, fractions: Mapping[str, float], seed: int) -> dict[str, PairTable]:
    """Split pairs so that no item is on two sides.

    Items that pairs connect, directly or through others, stay together. The groups are dealt out from the largest to
    the smallest, each to where it brings the numbers of pairs labelled 1 and of all others nearest to the wanted ones.
    Groups of one size are dealt in an order drawn from ``seed``. A group larger than the room that is left is dealt out
    all the same, so the parts may miss their fractions by as much as it is too large.

    Args:
        table: pairs; each part keeps their order.
        fractions: name of a part -> its share of the pairs, all together 1.

    Raises:
        UserError: the fractions are none, or a part would be empty, because too many pairs hang together.
    """
    groups = _groups(table)
    part_of = deal_groups(groups, table.labels == 1, fractions, seed)
    return {name: table.select(part_of[groups] == number) for number, name in enumerate(fractions)}


def deal_groups(
    groups: NDArray[np.int64], positives: NDArray[np.bool_], fractions: Mapping[str, float], seed: int
) -> NDArray[np.int64]:
    """Deal groups of pairs out to the parts of a split.

    Args:
        groups: (n,) for each pair the number of its group, from 0 on without gaps.
        positives: (n,) which pairs are of the first of two classes; each part gets its share of both.
        fractions: name of a part -> its share of the pairs, all together 1.
        seed: of the order in which groups of one size are dealt out.

    Returns:
        (groups,) the number of each group's part.

    Raises:
        UserError: the fractions are none, or a part would be empty, because too many pairs hang together.
    """
    if not fractions or min(fractions.values()) <= 0 or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise UserError("The fractions of a split are positive and sum up to 1: for instance train 0.8, valid 0.2.")
    sizes = np.bincount(groups)
    positive = np.bincount(groups[positives], minlength=len(sizes))
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.permutation(len(sizes)), -sizes))
    counts = np.stack([positive, sizes - positive], axis=1)
    part_of = np.empty(len(sizes), np.int64)
    part_of[order] = _dealt(counts[order], list(fractions.values()))
    for number, name in enumerate(fractions):
        if not (part_of == number).any():
            raise UserError(
                f"The part {name!r} of the split would be empty: {len(groups):,} pairs form {len(sizes):,} groups that "
                f"share no item, the largest of {sizes.max(initial=0):,} pairs. Give more pairs, or fewer parts."
            )
    return part_of


def _groups(table: PairTable) -> NDArray[np.int64]:
    """(n,) for each pair the number of its connected component, from 0 on without gaps."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(table), np.int8), (table.left, table.right)), shape=(len(table.items),) * 2)
    _, component = connected_components(edges, directed=False)
    _, groups = np.unique(component[table.left], return_inverse=True)
    return groups.astype(np.int64)


def _dealt(counts: NDArray[np.int64], fractions: list[float]) -> list[int]:
    """For each group the part that lessens the squared distance to the wanted counts the most.

    Both classes weigh alike, however rare one is.
    """
    totals = [max(int(total), 1) for total in counts.sum(axis=0)]
    missing = [[fraction * total for total in totals] for fraction in fractions]
    weights = [1 / total**2 for total in totals]
    dealt = []
    for group in counts.tolist():
        costs = [
            sum(w * n * (n - 2 * room) for w, n, room in zip(weights, group, rooms, strict=True)) for rooms in missing
        ]
        part = costs.index(min(costs))
        missing[part] = [room - n for room, n in zip(missing[part], group, strict=True)]
        dealt.append(part)
    return dealt


def seen_categories(train: PairTable) -> frozenset[str]:
    """Categories of the items in training pairs."""
    return frozenset(item.category for item in train.used_items())


def is_unseen(table: PairTable, seen: frozenset[str]) -> NDArray[np.bool_]:
    """(n,) whether an item of the pair is of a category that training never saw."""
    unseen = np.array([item.category not in seen for item in table.items], bool)
    either: NDArray[np.bool_] = unseen[table.left] | unseen[table.right]
    return either
