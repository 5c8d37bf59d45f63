"""Constrained components against a naive way to do it, whatever the order of rows; ids that stay with their groups."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.matching.groups.components import (
    DIFFERENT,
    SAME_SOURCE,
    TOO_LARGE,
    DifferentEdges,
    Grouping,
    SameEdges,
    assign_ids,
    connected_items,
    group_items,
)
from shopvision.matching.options import GroupOptions

Row = tuple[int, int, float, bool]


def same(*rows: Row | tuple[int, int, float]) -> SameEdges:
    whole = [(*row, False)[:4] for row in rows]
    columns = [np.array([row[place] for row in whole]) for place in range(4)]
    left, right, probability, reviewed = columns if whole else [np.zeros(0)] * 4
    return SameEdges(
        left.astype(np.int32), right.astype(np.int32), probability.astype(np.float32), reviewed.astype(np.bool_)
    )


def different(*rows: tuple[int, int] | tuple[int, int, bool]) -> DifferentEdges:
    array = np.array([(*row, False)[:3] for row in rows], np.int32).reshape(-1, 3)
    return DifferentEdges(array[:, 0], array[:, 1], array[:, 2] > 0)


def grouped(
    items: int, edges: SameEdges, apart: DifferentEdges, max_size: int, sources: list[int] | None = None
) -> Grouping:
    of_items = None if sources is None else np.array(sources, np.int32)
    return group_items(connected_items(items, edges), edges, apart, max_size, of_items)


def naive(
    items: int, edges: list[Row], apart: list[tuple[int, int, bool]], max_size: int, sources: list[int] | None = None
) -> Grouping:
    """Edge by edge over sets, with every pair of members compared."""
    sets = {item: {item} for item in range(items)}
    reasons = {}
    for people in (True, False):
        rows = [row for row, edge in enumerate(edges) if edge[3] is people]
        for row in sorted(rows, key=lambda row: (-np.float32(edges[row][2]), sorted(edges[row][:2]))):
            one, other = sets[edges[row][0]], sets[edges[row][1]]
            if one is other:
                continue
            if any(
                (a in one and b in other) or (b in one and a in other)
                for a, b, by_people in apart
                if by_people or not people
            ):
                reasons[row] = DIFFERENT
            elif not people and any(sources[a] == sources[b] >= 0 for a in one for b in other if sources):
                reasons[row] = SAME_SOURCE
            elif len(one) + len(other) > max_size:
                reasons[row] = TOO_LARGE
            else:
                one |= other
                for item in other:
                    sets[item] = one
    groups, number = np.full(items, -1, np.int32), 0
    for item in range(items):
        if len(sets[item]) > 1 and groups[item] < 0:
            groups[list(sets[item])] = number
            number += 1
    return Grouping(
        groups, np.array(sorted(reasons), np.int64), np.array([reasons[row] for row in sorted(reasons)], np.int8)
    )


def require_equal(one: Grouping, other: Grouping) -> None:
    np.testing.assert_array_equal(one.groups, other.groups)
    np.testing.assert_array_equal(one.refused, other.refused)
    np.testing.assert_array_equal(one.reasons, other.reasons)


@pytest.mark.parametrize("seed", range(60))
def test_as_the_naive_way(seed: int) -> None:
    generator = np.random.default_rng(seed)
    items = int(generator.integers(2, 40))
    every = np.stack(np.triu_indices(items, 1), axis=1)
    generator.shuffle(every)
    count = int(generator.integers(0, min(len(every), 2 * items)))
    edges = [
        (int(a), int(b), float(generator.integers(1, 6) / 5), bool(generator.random() < 0.2)) for a, b in every[:count]
    ]
    others = every[count : count + int(generator.integers(0, items))]
    apart = [(int(b), int(a), bool(generator.random() < 0.3)) for a, b in others]
    limit = int(generator.integers(2, 9))
    sources = generator.integers(-1, 6, items).tolist() if seed % 2 else None
    found = grouped(items, same(*edges), different(*apart), limit, sources)
    require_equal(found, naive(items, edges, apart, limit, sources))
    order = generator.permutation(len(edges))
    turned = [(b, a, *rest) for a, b, *rest in (edges[row] for row in order)]
    again = grouped(items, same(*turned), different(*apart[::-1]), limit, sources)
    np.testing.assert_array_equal(again.groups, found.groups)
    assert sorted(order[again.refused].tolist()) == found.refused.tolist()


def test_no_difference_runs_through_a_group() -> None:
    chain = same((0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.95))
    found = grouped(5, chain, different((0, 3)), 50)
    assert found.groups.tolist() == [0, 0, 1, 1, -1]
    assert (found.refused.tolist(), found.reasons.tolist()) == ([1], [DIFFERENT])


def test_what_people_joined_only_people_part() -> None:
    edges = same((0, 1, 0.1, True), (1, 2, 0.1, True), (2, 3, 0.99))
    assert grouped(4, edges, different((0, 2), (0, 3)), 50).groups.tolist() == [0, 0, 0, -1]
    assert grouped(4, edges, different((0, 2, True)), 50).groups.tolist() == [0, 0, 1, 1]


def test_a_large_component_is_cut_at_its_weakest_pairs() -> None:
    edges = same(*((item, item + 1, 0.5 if item % 3 == 2 else 0.9) for item in range(8)))
    found = grouped(9, edges, different(), 3)
    assert found.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (found.refused.tolist(), found.reasons.tolist()) == ([2, 5], [TOO_LARGE, TOO_LARGE])


def test_of_one_source_the_surest_is_in_the_group() -> None:
    """Items 1 and 2 come from one source, 0 and 3 from none; 0 is both, and surer to be 2."""
    found = grouped(4, same((0, 1, 0.8), (0, 2, 0.9), (2, 3, 0.7)), different(), 50, [-1, 5, 5, -1])
    assert found.groups.tolist() == [0, -1, 0, 0]
    assert (found.refused.tolist(), found.reasons.tolist()) == ([0], [SAME_SOURCE])


def test_a_group_that_people_made_may_hold_one_source_twice() -> None:
    edges = same((0, 1, 0.1, True), (1, 2, 0.9), (2, 3, 0.8))
    found = grouped(4, edges, different(), 50, [7, 7, 7, 8])
    assert found.groups.tolist() == [0, 0, 1, 1]
    assert (found.refused.tolist(), found.reasons.tolist()) == ([1], [SAME_SOURCE])


def test_nothing_to_group() -> None:
    found = grouped(0, same(), different(), 50)
    assert (found.count, len(found.groups), len(found.refused)) == (0, 0, 0)


def test_a_hundred_thousand_pairs_take_little_memory() -> None:
    generator = np.random.default_rng(0)
    ends: NDArray[np.int32] = generator.integers(0, 300_000, (2, 100_000)).astype(np.int32)
    ends = ends[:, ends[0] != ends[1]]
    count = ends.shape[1]
    edges = SameEdges(ends[0], ends[1], generator.random(count, np.float32), np.zeros(count, bool))
    tracemalloc.start()
    found = grouped(300_000, edges, different((0, 1)), 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.count > 40_000
    assert peak < 30 * 2**20


@pytest.mark.parametrize(
    ("groups", "former", "expected"),
    [
        ([0, 0, 0, 1, 1], [0, 0, -1, 1, 1], [0, 1]),  # one joins
        ([0, 0, -1, 1, 1], [0, 0, 0, 1, 1], [0, 1]),  # one leaves
        ([0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1]),  # merged: the larger part's
        ([0, 0, 0, 0], [1, 1, 0, 0], [0]),  # as large: the older
        ([0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [-1, 0]),  # split: the larger part keeps it
        ([0, 0, 1, 1], [0, 0, 0, 0], [0, -1]),  # as large: the first
        ([0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1], [0, 1]),  # one each way
        ([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 1]),
        ([0, 0, 1, 1], [-1, -1, -1, -1], [-1, -1]),
        ([-1, -1], [0, 0], []),
        ([], [], []),
    ],
)
def test_groups_keep_their_ids(groups: list[int], former: list[int], expected: list[int]) -> None:
    assert assign_ids(np.array(groups, np.int32), np.array(former, np.int32)).tolist() == expected


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="max_size is 1"):
        GroupOptions(max_size=1)
    with pytest.raises(UserError, match=r"different_below is 1\.5"):
        GroupOptions(different_below=1.5)
