"""Names, masks, categories, the choice of index and the gate: what needs neither database nor store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shopvision.errors import JobError
from shopvision.index import build
from shopvision.index.build import available_memory, choose_type, exact_index, memory_needed, require_memory
from shopvision.index.filtered_search import nearest_of
from shopvision.index.gate import GenerationRefused, require_count, require_recall, require_sound_vectors
from shopvision.index.ids import (
    FEW_ROWS,
    IdRow,
    IdsWriter,
    PictureRows,
    category_codes,
    image_ids,
    in_category,
    live_masks,
    look_up,
    read_ids,
)
from shopvision.index.manifest import model_folder, new_path


def test_model_folders_are_safe_and_never_shared() -> None:
    assert model_folder("efficientnet-lite0:1a2b") == "efficientnet-lite0@1a2b"
    specs = ["a:b", "a@b:c", "a:b@c", "a/b:c", "a:b/c", "a:b:c", "../x:y"]
    folders = {model_folder(spec) for spec in specs}
    assert len(folders) == len(specs)
    assert not any("/" in folder for folder in folders)
    assert new_path("shop", "../x:y").startswith("indexes/shop/generations/..%2Fx@y/20")


def test_live_masks_hide_earlier_rows_only() -> None:
    base, first, second = np.array([1, 2, 3, 4]), np.array([2, 5]), np.array([5, 1])
    masks = live_masks([(base, np.array([], int)), (first, np.array([2])), (second, np.array([5, 1, 4]))])
    assert [mask.tolist() for mask in masks] == [[False, False, True, False], [True, False], [True, True]]


def test_a_category_covers_what_lies_below_it_and_nothing_that_merely_begins_alike() -> None:
    names = ["Men/Tops", "Men/Tops/Tanks", "Men/Topsy", "Men", ""]
    assert in_category(names, "Men/Tops").tolist() == [True, True, False, False, False]
    assert in_category(names, "/Men/").tolist() == [True, True, True, True, False]


def test_ids_survive_the_file(tmp_path: Path) -> None:
    rows = [IdRow(7, 3, "sku-1", "Ströme/Bücher", "s3://b/ä.jpg"), IdRow(9, 0, "sku-2", None, "file:///x")]
    with IdsWriter(tmp_path / "ids.arrow") as writer:
        writer.write(rows[:1])
        writer.write(rows[1:])
    table = read_ids(tmp_path / "ids.arrow")
    assert [tuple(row.values()) for row in table.to_pylist()] == [tuple(row) for row in rows]
    assert image_ids(table).tolist() == [7, 9]
    codes, names = category_codes(table)
    assert [names[code] for code in codes] == ["Ströme/Bücher", ""]


def test_an_ids_file_may_be_empty(tmp_path: Path) -> None:
    with IdsWriter(tmp_path / "ids.arrow"):
        pass
    assert read_ids(tmp_path / "ids.arrow").num_rows == 0


@pytest.mark.parametrize("ids", [[1, 1, 4, 9, 9, 9], [9, 4, 1, 9, 1, 9], [4], []])
def test_the_rows_of_pictures_are_found(ids: list[int]) -> None:
    rows = PictureRows(np.array(ids, np.int64))
    for wanted in ([], [1], [4, 9], [0, 1, 2, 4, 5, 9, 10], [10, 11]):
        expected = [row for picture in wanted for row, own in enumerate(ids) if own == picture]
        assert rows.find(np.array(wanted, np.int64)).tolist() == expected


def test_few_rows_are_compared_as_all_are() -> None:
    vectors = unit_vectors(300)
    index = exact_index(8)
    index.add(vectors.astype(np.float32))
    queries = np.random.default_rng(2).standard_normal((5, 8), np.float32)
    rows = np.arange(7, 300, 11)
    right = np.sort(queries.astype(np.float64) @ vectors[rows].astype(np.float64).T)[:, ::-1]
    for k in (1, 10, len(rows), 1000):
        scores, places = nearest_of(index, queries, k, rows)
        np.testing.assert_allclose(scores, right[:, :k], atol=1e-5)
        found = vectors[rows[places]].astype(np.float64)
        np.testing.assert_allclose(np.einsum("qd,qkd->qk", queries, found), scores, atol=1e-5)
    assert [part.shape for part in nearest_of(index, queries, 10, rows[:0])] == [(5, 0), (5, 0)]


@pytest.mark.parametrize(
    ("rows", "kind"), [(0, "exact"), (20_000, "exact"), (20_001, "hnsw"), (2_000_000, "hnsw"), (2_000_001, "ivfpq")]
)
def test_the_type_follows_the_size(rows: int, kind: str) -> None:
    assert choose_type(rows) == kind


def test_memory_is_estimated_and_refused_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    # A million vectors of 1280 halves are 2.56 GB; arrays that double while growing may take twice that.
    assert 2.56e9 < memory_needed("hnsw", 1_000_000, 1280) < 8e9
    assert available_memory() > 0
    monkeypatch.setattr(build, "available_memory", lambda: 2**30)
    require_memory("hnsw", 100_000, 128)
    with pytest.raises(JobError, match=r"1,000,000 vectors of dimension 1280 needs \d\.\d GiB .* 1\.0 GiB are free"):
        require_memory("hnsw", 1_000_000, 1280)


def unit_vectors(rows: int, dimension: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(1).standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_the_gate_counts_and_measures_lengths() -> None:
    require_count(3, 3)
    with pytest.raises(GenerationRefused, match=r"holds 3 vectors, Postgres 4"):
        require_count(3, 4)
    vectors = unit_vectors(50)
    require_sound_vectors(vectors)
    for wrong in (0.0, 2.0, np.nan, np.inf):
        broken = vectors.copy()
        broken[13] *= np.float16(wrong)
        with pytest.raises(GenerationRefused, match=r"^1 vectors are not finite"):
            require_sound_vectors(broken)


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 500])
def test_an_exact_index_has_full_recall_whatever_its_size(rows: int) -> None:
    vectors = unit_vectors(rows)
    index = exact_index(8)
    index.add(vectors.astype(np.float32))
    assert require_recall(index, "exact", vectors) == (0, 1.0)


def test_identical_pictures_do_not_count_as_misses() -> None:
    vectors = np.repeat(unit_vectors(10), 30, axis=0)
    index = exact_index(8)
    index.add(vectors.astype(np.float32))
    assert require_recall(index, "exact", vectors) == (0, 1.0)


def test_rows_of_the_index_that_belong_to_other_pictures_are_noticed() -> None:
    vectors = unit_vectors(500)
    index = exact_index(8)
    index.add(np.roll(vectors, 1, axis=0).astype(np.float32))
    with pytest.raises(GenerationRefused, match=r"recall@10 is 0\."):
        require_recall(index, "exact", vectors)


def test_few_rows_and_many_are_looked_up_alike(tmp_path: Path) -> None:
    """Few go one by one, many batch by batch: each in the order asked for, repeated ones too."""
    rows = [
        IdRow(number, 0, f"item-{number % 50}", f"c/{number % 7}" if number % 3 else None, f"u{number}")
        for number in range(900)
    ]
    with IdsWriter(tmp_path / "ids") as writer:
        for start in range(0, 900, 250):
            writer.write(rows[start : start + 250])
    table = read_ids(tmp_path / "ids")
    asked = np.random.default_rng(3).integers(0, 900, 2 * FEW_ROWS)
    expected = [rows[number]._asdict() for number in asked]
    assert look_up(table, asked) == expected
    assert look_up(table, asked[:FEW_ROWS]) == expected[:FEW_ROWS]
    assert look_up(table, asked[:0]) == []
