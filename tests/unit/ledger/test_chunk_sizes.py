"""How a job is cut: small chunks first, growing to the kind's size."""

from __future__ import annotations

from itertools import islice

from worker.ledger.splits import chunk_sizes


def test_chunks_grow_from_an_eighth_to_the_whole_size() -> None:
    assert list(islice(chunk_sizes(1000), 14)) == [125] * 4 + [250] * 4 + [500] * 4 + [1000] * 2


def test_a_kind_with_small_chunks_is_cut_evenly() -> None:
    assert list(islice(chunk_sizes(20), 6)) == [20] * 6
    assert list(islice(chunk_sizes(100), 6)) == [64] * 4 + [100] * 2
