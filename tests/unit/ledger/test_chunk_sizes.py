"""How a job is cut: small chunks first, growing to the kind's size, and small ones last."""

from __future__ import annotations

import pytest

from worker.ledger.splits import chunk_sizes


def test_chunks_grow_from_an_eighth_to_the_whole_size_and_shrink_again() -> None:
    rising = [125] * 4 + [250] * 4 + [500] * 4
    assert chunk_sizes(10_000, 1000) == [*rising, *[1000] * 3, *rising[::-1]]
    assert chunk_sizes(2000, 512) == [64] * 4 + [128] * 4 + [232] * 2 + [128] * 4 + [64] * 4
    assert chunk_sizes(600, 512) == [64] * 4 + [88] + [64] * 4
    assert chunk_sizes(513, 512) == [64] * 8 + [1]


def test_a_kind_with_small_chunks_is_cut_evenly() -> None:
    assert chunk_sizes(105, 20) == [20] * 5 + [5]
    assert chunk_sizes(700, 100) == [64] * 4 + [94] * 2 + [64] * 4
    assert chunk_sizes(5, 4) == [4, 1]
    assert chunk_sizes(0, 4) == []


@pytest.mark.parametrize("largest", [1, 3, 64, 100, 512, 4096])
def test_every_item_is_in_one_chunk_and_none_is_too_large(largest: int) -> None:
    for items in (1, 2, 63, 64, 65, 127, 128, 129, 1000, 4095, 4097, 99_999):
        sizes = chunk_sizes(items, largest)
        assert sum(sizes) == items
        assert 0 < min(sizes) <= max(sizes) <= largest
