"""Which pairs make a step: each once, of like length, alike in every process."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.sampling import LengthSampler, NegativesSampler, Step
from tests.unit.matching.pair_world import table_of

LENGTHS = np.random.default_rng(4).integers(10, 200, 1003)


def length_sampler(batch_size: int = 16, world: int = 1, *, swap: bool = True) -> LengthSampler:
    return LengthSampler(LENGTHS, batch_size=batch_size, world=world, seed=5, swap=swap)


def test_every_pair_once_an_epoch_in_batches_of_like_length() -> None:
    sampler = length_sampler()
    steps = sampler.epoch(1)
    assert len(steps) == sampler.steps_per_epoch
    assert sorted(np.concatenate([step.rows for step in steps])) == list(range(1003))
    assert {len(step.rows) for step in steps} <= {14, 15, 16}
    padded = sum(LENGTHS[step.rows].max() * len(step.rows) for step in steps)
    shuffled = np.random.default_rng(1).permutation(LENGTHS)[:992].reshape(-1, 16)
    assert padded < 1.05 * LENGTHS.sum()
    assert shuffled.max(1).sum() * 16 > 1.5 * shuffled.sum()  # what sorting saves
    firsts = [int(LENGTHS[step.rows].max()) for step in steps]
    assert firsts != sorted(firsts)  # long and short batches in random order


def test_epochs_differ_and_a_second_run_does_not() -> None:
    def rows(epoch: int) -> list[list[int]]:
        return [step.rows.tolist() for step in length_sampler().epoch(epoch)]

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)
    assert {frozenset(step) for step in rows(1)}.isdisjoint(frozenset(step) for step in rows(2))


def test_half_of_the_pairs_are_swapped() -> None:
    swapped = np.concatenate([step.swapped for step in length_sampler().epoch(1)])
    assert 0.4 < swapped.mean() < 0.6
    assert not any(step.swapped.any() for step in length_sampler(swap=False).epoch(1))


def test_processes_share_a_step() -> None:
    step = Step(np.arange(10), np.arange(10) % 3 == 0)
    shares = [step.shard(rank, 3) for rank in range(3)]
    assert [share.rows.tolist() for share in shares] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert [share.swapped.tolist() for share in shares] == [[True] * 4, [False] * 3, [False] * 3]


def test_no_process_goes_without_a_pair() -> None:
    with pytest.raises(UserError, match="20 processes cannot share batches of 15 pairs"):
        length_sampler(world=20)


def offers() -> PairTable:
    """Ten same-pairs (2k, 2k + 1); item 2k is different from items 2k + 3 and 2k + 5."""
    same = [(2 * k, 2 * k + 1, 1) for k in range(10)]
    different = [(2 * k, (2 * k + far) % 20, 0) for k in range(10) for far in (3, 5)]
    return table_of([Item(str(number)) for number in range(20)], same + different)


def negatives_sampler(batch_size: int = 8, hard: int = 1, world: int = 1) -> NegativesSampler:
    return NegativesSampler(offers(), batch_size=batch_size, hard_negatives=hard, world=world, seed=5, swap=True)


def test_same_pairs_come_with_negatives_of_their_items() -> None:
    table, sampler = offers(), negatives_sampler()
    steps = sampler.epoch(1)
    assert len(steps) == sampler.steps_per_epoch == 3
    seen = []
    for step in steps:
        positives = step.rows[table.labels[step.rows] == 1]
        negatives = step.rows[table.labels[step.rows] == 0]
        assert step.rows.tolist() == [*positives, *negatives]
        assert 1 <= len(negatives) <= len(positives) <= 4
        known = {int(item) for row in positives for item in (table.left[row], table.right[row])}
        assert all({int(table.left[row]), int(table.right[row])} & known for row in negatives)
        seen += positives.tolist()
    assert sorted(seen) == list(range(10))
    assert [step.rows.tolist() for step in sampler.epoch(2)] != [step.rows.tolist() for step in steps]


def test_shares_of_a_ranking_step_are_equal() -> None:
    sampler = negatives_sampler(batch_size=12, hard=2, world=3)
    for step in sampler.epoch(1):
        assert len(step.rows) % 3 == 0
        assert (offers().labels[step.rows] == 1).sum() >= 3


@pytest.mark.parametrize(("batch_size", "hard", "world"), [(3, 1, 1), (8, 4, 1), (16, 3, 5)])
def test_a_ranking_step_needs_same_pairs_to_tell_apart(batch_size: int, hard: int, world: int) -> None:
    with pytest.raises(UserError, match="are too few for"):
        negatives_sampler(batch_size, hard, world)


def test_without_hard_negatives() -> None:
    labels = offers().labels
    assert all((labels[step.rows] == 1).all() for step in negatives_sampler(hard=0).epoch(1))


def test_negatives_without_a_pair_of_the_same_product_are_refused() -> None:
    items = tuple(Item(str(number)) for number in range(4))
    sides = np.array([0, 2], np.int32), np.array([1, 3], np.int32)
    table = PairTable(items, *sides, np.zeros(2, np.int8))
    with pytest.raises(UserError, match="none of 2 is one: label some 1, or take another loss"):
        NegativesSampler(table, batch_size=8, hard_negatives=1, world=1, seed=0, swap=False)
