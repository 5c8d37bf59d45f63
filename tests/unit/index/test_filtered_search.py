"""Searches among some rows: what they find, compared with every allowed row in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shopvision.index import filtered_search
from shopvision.index import part as part_module
from shopvision.index.build import build
from shopvision.index.faiss_library import faiss
from shopvision.index.filtered_search import RowFilter, copied, nearest_of, nearest_rows
from shopvision.index.ids import IdRow, IdsWriter, live_masks, read_ids
from shopvision.index.part import Owners, Part

ROWS, DIMENSION, K = 1_500, 16, 7
RANDOM = np.random.default_rng(0)


def unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


CENTRES = RANDOM.standard_normal((30, DIMENSION))
PLACE = np.arange(ROWS) % len(CENTRES)  # which centre a row lies at
VECTORS = unit(CENTRES[PLACE] + 0.4 * RANDOM.standard_normal((ROWS, DIMENSION))).astype(np.float16)
QUERIES = unit(CENTRES[[0, 0, 3, 17]] + 0.4 * RANDOM.standard_normal((4, DIMENSION)))
INDEXES = {kind: build(kind, VECTORS) for kind in ("exact", "hnsw", "ivfpq")}
EFFORTS = {"exact": 0, "hnsw": 128, "ivfpq": 16}
FILTERS = {
    "all": np.arange(ROWS),
    "all but one": np.arange(1, ROWS),
    "nine of ten": np.flatnonzero(np.arange(ROWS) % 10),
    "a fifth, elsewhere": np.flatnonzero((PLACE >= 10) & (PLACE < 16)),
    "a fifth, here": np.flatnonzero(PLACE < 6),
    "thin where the queries lie": np.flatnonzero(~np.isin(PLACE, (0, 3, 17)) | (np.arange(ROWS) // 30 % 7 == 0)),
    "one in a hundred": np.arange(5, ROWS, 100),
    "fewer than asked for": np.array([3, 700, 1_499]),
    "none": np.empty(0, np.int64),
}


def expected(query: NDArray[np.float32], rows: NDArray[np.int64], k: int = K) -> list[int]:
    scores = VECTORS[rows].astype(np.float64) @ query.astype(np.float64)
    return [int(rows[place]) for place in np.argsort(-scores, kind="stable")[:k]]


def right(index: Any, effort: int, rows: NDArray[np.int64], *, with_copy: bool = False) -> float:
    """Share of the right answers; every answer must be allowed, once, and have its own score."""
    only = RowFilter(ROWS, rows)
    if with_copy:
        only.copy = copied(index, only.rows)
    scores, found = nearest_rows(index, effort, QUERIES, K, only)
    shares = []
    for query, of_query, answer in zip(QUERIES, scores, found.tolist(), strict=True):
        wanted = expected(query, rows)
        assert len(set(answer)) == len(answer) == len(wanted)
        assert set(answer) <= set(rows.tolist())
        np.testing.assert_allclose(of_query, VECTORS[answer].astype(np.float64) @ query, atol=1e-5)
        assert (np.diff(of_query) <= 0).all()
        shares.append(len(set(answer) & set(wanted)) / len(wanted) if wanted else 1.0)
    return float(np.mean(shares))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("price", [0.0, None, 1e9])  # the index is asked first, as measured, or each row is compared
def test_filtered_answers_are_right(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, price: float | None) -> None:
    if price is not None:
        for constant in ("ROWS_PER_STEP", "ROWS_PER_SCANNED"):
            monkeypatch.setattr(filtered_search, constant, price)
    is_exact = kind == "exact" or (price == 1e9 and name != "all")
    for with_copy in (False, True):
        share = right(INDEXES[kind], EFFORTS[kind], FILTERS[name], with_copy=with_copy)
        assert share == 1.0 if is_exact and not with_copy else share >= 0.9


def test_rows_that_are_compared_again_are_copied_while_there_is_room(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IdsWriter(tmp_path / "ids.arrow") as ids:
        ids.write(IdRow(n, 0, f"i-{n}", f"C{n % 3}/all", "u") for n in range(ROWS))
    part = Part(INDEXES["hnsw"], read_ids(tmp_path / "ids.arrow"), np.ones(ROWS, np.bool_), 128)
    monkeypatch.setattr(filtered_search, "ROWS_PER_STEP", 1e9)
    monkeypatch.setattr(part_module, "COPIED_FROM_ROWS", 10)
    monkeypatch.setattr(part_module, "COPIED_BYTES", 2 * 500 * 2 * DIMENSION)  # of two categories

    def ask(category: str) -> None:
        _, found = part.nearest(QUERIES, K, category)
        for query, answer in zip(QUERIES, found.tolist(), strict=True):
            assert answer == expected(query, np.arange(int(category[1]), ROWS, 3))

    def kept() -> list[str]:
        return [category for (category, _), made in part._filters.items() if made.only.copy is not None]

    ask("C0")
    assert kept() == []
    for category in ("C0", "C1", "C1"):
        ask(category)
    assert kept() == ["C0", "C1"]
    for category in ("C0", "C2", "C2"):
        ask(category)
    assert kept() == ["C0", "C2"]
    ask("C1")
    monkeypatch.setattr(part_module, "COPIED_BYTES", 100)
    ask("C1")
    ask("C1")
    assert kept() == ["C0", "C2"]


def test_a_walk_is_lengthened_only_where_that_is_cheaper_than_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        ntotal = ROWS

        def __init__(self) -> None:
            self.asked: list[tuple[int, int]] = []

        def search(self, vectors: NDArray[np.float32], k: int, **_: Any) -> Any:
            self.asked.append((len(vectors), k))
            return INDEXES["exact"].search(vectors, k)

    compared: list[int] = []

    def compare(_: Any, vectors: NDArray[np.float32], k: int, rows: NDArray[np.int32]) -> Any:
        compared.append(len(vectors))
        return nearest_of(INDEXES["exact"], vectors, k, rows)

    monkeypatch.setattr(filtered_search, "search_parameters", lambda *_: None)
    monkeypatch.setattr(filtered_search, "nearest_of", compare)
    monkeypatch.setattr(filtered_search, "ROWS_PER_STEP", 1)

    def calls(name: str) -> tuple[list[tuple[int, int]], list[int]]:
        counting = Counting()
        compared.clear()
        nearest_rows(counting, 16, QUERIES, K, RowFilter(ROWS, FILTERS[name]))
        return counting.asked, compared

    monkeypatch.setattr(filtered_search, "STEPS_PER_ROW", 1)
    assert calls("all") == ([(4, K)], [])
    assert calls("a fifth, elsewhere") == ([(4, 70)], [4])  # none of 70 is allowed: no telling how far the next one is
    assert calls("one in a hundred") == ([], [4])
    walks, rest = calls("thin where the queries lie")
    assert walks[0] == (4, 16)
    assert [len(walks), rest] == [2, []]
    assert walks[1][1] > 2 * 16


@pytest.mark.parametrize("block", [64, 4_096, 1 << 19])  # two rows at a time, some, and all at once
def test_rows_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(filtered_search, "BLOCK_BYTES", block)
    rows = FILTERS["nine of ten"]
    for k in (1, 10, 200, 5_000):
        scores, places = nearest_of(INDEXES["hnsw"], QUERIES, k, rows)
        assert scores.shape == places.shape == (len(QUERIES), min(k, len(rows)))
        for query, answer in zip(QUERIES, places, strict=True):
            assert rows[answer].tolist() == expected(query, rows, k)


def test_equal_scores_come_in_the_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_search, "BLOCK_BYTES", 4 * 8)
    axes = np.eye(4, dtype=np.float16)
    index = build("exact", axes[[0, 1, 0, 2, 0, 0, 3, 0, 1, 0]])
    scores, places = nearest_of(index, axes[:1].astype(np.float32), 8, np.array([0, 2, 3, 4, 5, 7, 8, 9]))
    assert places.tolist() == [[0, 1, 3, 4, 5, 7, 2, 6]]
    assert scores.tolist() == [[1.0] * 6 + [0.0] * 2]
    best, _ = nearest_of(index, axes[:1].astype(np.float32), 3, np.arange(10))
    assert best.tolist() == [[1.0] * 3]


def test_owners_are_the_pictures_of_each_row() -> None:
    owners = Owners(np.array([2, 3, 5, 8, 9]), np.array([7, 4, 7, 1, 4], np.int32))
    assert owners.rows.tolist() == [1, 4, 7]
    scores, pictures = owners.spread(
        np.array([[0.9, 0.5, 0.1], [0.8, 0.2, -np.inf]], np.float32), np.array([[7, 1, 4], [4, 7, -1]]), 4
    )
    assert pictures.tolist() == [[2, 5, 8, 3], [3, 9, 2, 5]]
    np.testing.assert_allclose(scores, [[0.9, 0.9, 0.5, 0.1], [0.8, 0.8, 0.2, 0.2]])


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("read_only", [False, True])
def test_tombstones_regions_and_given_pictures_together(tmp_path: Any, kind: str, read_only: bool) -> None:
    """Three regions a picture, of which a later segment hides some; equal vectors are one row of the index."""
    picture = np.arange(ROWS) // 3
    with IdsWriter(tmp_path / "ids.arrow") as ids:
        ids.write(IdRow(int(picture[n]), n % 3, f"i-{picture[n]}", f"C{picture[n] % 2}", "u") for n in range(ROWS))
    hidden = np.array([0, 10, 11, 300])
    live = live_masks([(picture, np.empty(0, int)), (np.empty(0, int), hidden)])[0]
    vector_rows = np.arange(ROWS, dtype=np.int32)
    vector_rows[30:60] = 30
    part = Part(INDEXES[kind], read_ids(tmp_path / "ids.arrow"), live, EFFORTS[kind], vector_rows)
    wanted = np.array([0, 2, 9, 10, 12, 14, 15, 300, 301, 302, 499, 9_999])
    wanted.flags.writeable = not read_only
    for category in (None, "C1"):
        allowed = np.isin(picture, wanted) & ~np.isin(picture, hidden)
        if category:
            allowed &= picture % 2 == 1
        for _ in range(2):  # once more, with what was remembered
            _, found = part.nearest(QUERIES, 9, category, wanted)
            for query, answer in zip(QUERIES, found, strict=True):
                scores = VECTORS[vector_rows].astype(np.float64) @ query
                scores[~allowed] = -np.inf
                assert answer.tolist() == np.argsort(-scores, kind="stable")[:9].tolist()
    assert bool(part._filters) is read_only


def test_faiss_searches_so_many_rows_as_it_is_told() -> None:
    """``nearest_of`` reuses the room of a block: rows beyond ``ntotal`` must not be answered."""
    index = build("exact", VECTORS[:10])
    index.ntotal = 3
    _, found = faiss.downcast_index(index).search(QUERIES, 10)
    assert found.max() == 2
