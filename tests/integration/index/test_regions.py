"""Pictures with several vectors, one for each region; and searches among some pictures only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from shopvision.database import connect
from shopvision.index import drafts, filtered_search, ids, source
from shopvision.index.manifest import Manifest
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.index.verifying import verify
from shopvision.storage import ObjectStore
from tests.integration.index.catalogue import add_items, clustered, embed, make_model, notes, remove_items, toy

PICTURES = 120


class Garments:
    """``PICTURES`` pictures of ``composed:1``: number ``n`` has the regions 0 .. ``n % 3``."""

    def __init__(self, dimension: int = 16) -> None:
        self.model = make_model("composed", kind="composed_encoder")
        self.keys = [(number, region) for number in range(PICTURES) for region in range(number % 3 + 1)]
        self.vectors = clustered(len(self.keys), dimension, seed=4)
        add_items(0, PICTURES)
        for region in range(3):
            mine = [row for row, key in enumerate(self.keys) if key[1] == region]
            embed(self.model, [self.keys[row][0] for row in mine], self.vectors[mine], region)

    def vector(self, number: int, region: int) -> np.ndarray:
        return self.vectors[self.keys.index((number, region))].astype(np.float32)

    def nearest(self, query: np.ndarray, k: int, among: Iterable[int] = range(PICTURES)) -> list[tuple[int, int]]:
        """Exact answer by plain numpy."""
        allowed = set(among)
        scores = self.vectors.astype(np.float32) @ query
        order = [self.keys[row] for row in np.argsort(-scores, kind="stable")]
        return [key for key in order if key[0] in allowed][:k]


def found(reader: IndexReader, query: np.ndarray, k: int = 10, **options: Any) -> list[tuple[int, int]]:
    reader.refresh()
    return [(hit.image_id, hit.region) for hit in reader.search(query[None], k, **options)[0]]


def test_each_region_is_found_by_itself(store: ObjectStore, reader: IndexReader) -> None:
    shop = Garments()
    assert notes(shop.model) == PICTURES  # once for each picture, although three statements touched some
    report = publish("shop", shop.model, store)
    assert report.counts == {"live": 240, "base": 240, "delta": 0, "tombstones": 0}
    assert notes(shop.model) == 0
    for key in ((0, 0), (1, 0), (1, 1), (119, 2)):
        query = shop.vector(*key)
        assert found(reader, query, 1) == [key]
        assert found(reader, query, 25) == shop.nearest(query, 25)
    assert len(reader.generation().vectors_of("item-2")) == 3


def test_a_picture_is_replaced_with_all_its_regions(store: ObjectStore, reader: IndexReader) -> None:
    shop = Garments()
    publish("shop", shop.model, store)
    fresh = clustered(2, 16, seed=9)
    embed(shop.model, [5], fresh[:1], region=1)  # one region of three changes
    embed(shop.model, [0], fresh[1:], region=7)  # one comes
    with connect() as connection:  # one goes, another with its whole picture
        connection.execute(text("DELETE FROM embeddings WHERE image_id = 8 AND region = 2"))
    remove_items([11])
    assert notes(shop.model) == 4
    report = publish("shop", shop.model, store)
    # Hidden are all rows of 5, 0, 8 and 11 (3 + 1 + 3 + 3); new are 3 of 5, 2 of 0 and 2 of 8.
    assert (report.kind, report.counts) == ("delta", {"live": 237, "base": 240, "delta": 7, "tombstones": 10})
    everything = sorted(found(reader, fresh[0].astype(np.float32), 1000))
    assert everything == sorted({*shop.keys, (0, 7)} - {(8, 2), (11, 0), (11, 1), (11, 2)})
    assert found(reader, fresh[0].astype(np.float32), 1) == [(5, 1)]
    assert found(reader, fresh[1].astype(np.float32), 1) == [(0, 7)]
    assert found(reader, shop.vector(5, 2), 1) == [(5, 2)]
    checked = verify("shop", store)
    assert (checked.live, checked.in_postgres, checked.pending, checked.problems) == (237, 237, 0, [])


def test_a_change_is_as_large_as_its_vectors_are_many(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 120 pictures 16 changed; of 240 vectors 48, a fifth."""
    shop = Garments()
    publish("shop", shop.model, store)
    numbers = range(2, 50, 3)
    monkeypatch.setattr(drafts, "COMPACT_RATIO", 0.19)
    embed(shop.model, numbers, clustered(len(numbers), 16, seed=1), region=1)
    assert publish("shop", shop.model, store).kind == "full"
    monkeypatch.setattr(drafts, "COMPACT_RATIO", 0.21)
    embed(shop.model, numbers, clustered(len(numbers), 16, seed=2), region=1)
    assert publish("shop", shop.model, store).kind == "delta"


@pytest.mark.usefixtures("database")
def test_a_statement_that_moves_items_notes_each_picture_once() -> None:
    shop = Garments()
    with connect() as connection:
        connection.execute(text("DELETE FROM index_changes"))
        connection.execute(text("UPDATE items SET category = 'Moved' WHERE item_id IN ('item-2', 'item-5')"))
    assert notes(shop.model) == 2
    with connect() as connection:
        connection.execute(text("UPDATE embeddings SET vector = vector"))
        assert notes(shop.model) == 2
        connection.execute(text("UPDATE embeddings SET vector = '' WHERE image_id IN (8, 11)"))
    assert notes(shop.model) == 4


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq"])
def test_only_given_pictures_are_answered(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(drafts, "choose_type", lambda rows: kind)
    shop = Garments()
    publish("shop", shop.model, store)
    remove_items([31])
    swapped = shop.keys.index((32, 1))
    shop.vectors[swapped] = clustered(1, 16, seed=11)[0]
    embed(shop.model, [32], shop.vectors[swapped : swapped + 1], region=1)
    publish("shop", shop.model, store)  # a delta with a picture of three regions, and a tombstone

    wanted = np.array([1, 2, 30, 31, 32, 33, 34, 35, 90, 500], np.int64)
    there = [1, 2, 30, 32, 33, 34, 35, 90]
    tops = [number for number in there if number % 5 in (0, 1)]  # Men/Tops and what lies below it
    assert tops == [1, 30, 35, 90]
    read_only = wanted.copy()
    read_only.flags.writeable = False
    for price, given in itertools.product((0.0, 1e9), (wanted, read_only)):  # the index is asked, or each is compared
        for name in ("ROWS_PER_STEP", "ROWS_PER_SCANNED"):
            monkeypatch.setattr(filtered_search, name, price)
        for query in (shop.vector(77, 1), shop.vectors[swapped].astype(np.float32)):
            assert found(reader, query, 7, pictures=given) == shop.nearest(query, 7, there)
            assert found(reader, query, 100, pictures=given) == shop.nearest(query, 100, there)
            inside = shop.nearest(query, 100, tops)
            hard = found(reader, query, 100, category="Men/Tops", soft=False, pictures=given)
            assert hard == inside
            others = [key for key in shop.nearest(query, 100, there) if key not in inside]
            assert found(reader, query, 100, category="Men/Tops", pictures=given) == inside + others
            assert found(reader, query, 5, pictures=np.empty(0, np.int64)) == []
            assert found(reader, query, 5, pictures=given[-1:]) == []
    near = reader.generation().nearest(shop.vectors[:4].astype(np.float32), 3, pictures=wanted)
    assert near.scores.shape == (4, 3)


def test_given_pictures_may_share_a_vector(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(200)
    shop.vectors[20:60] = shop.vectors[20]
    embed(shop.model, range(20, 60), shop.vectors[20:60])
    publish("shop", shop.model, store)
    query = shop.vectors[20].astype(np.float32)
    wanted = np.array([3, 25, 30, 59, 60], np.int64)
    assert found(reader, query, 3, pictures=wanted) == [(25, 0), (30, 0), (59, 0)]
    assert sorted(found(reader, query, 9, pictures=wanted)) == [(number, 0) for number in wanted]
    assert found(reader, query, 2, category="Men/Tops/Tanks", soft=False, pictures=wanted) == [(25, 0), (30, 0)]


class WriterOfFormat1(ids.IdsWriter):
    """As ids were written before there were regions."""

    def __init__(self, path: Any) -> None:
        self._former = ids.SCHEMA.remove(ids.SCHEMA.get_field_index("region"))
        self._writer = pa.ipc.new_file(str(path), self._former)

    def write(self, rows: Iterable[ids.IdRow]) -> None:
        given = list(rows)
        columns = [pa.array([getattr(row, field.name) for row in given], field.type) for field in self._former]
        self._writer.write_batch(pa.record_batch(columns, schema=self._former))


def test_a_generation_of_the_former_format_is_searched_and_built_upon(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = toy(60)
    with monkeypatch.context() as former:
        former.setattr(source, "IdsWriter", WriterOfFormat1)
        former.setattr(drafts, "Manifest", partial(Manifest, format_version=1))
        publish("shop", shop.model, store)
    query = shop.vectors[7].astype(np.float32)
    assert found(reader, query) == [(number, 0) for number in shop.nearest(7)]
    assert reader.generation().manifest.format_version == 1

    embed(shop.model, [7], shop.vectors[7:8], region=2)
    report = publish("shop", shop.model, store)
    assert (report.kind, report.counts["live"]) == ("delta", 61)
    assert sorted(found(reader, query, 2)) == [(7, 0), (7, 2)]
    assert reader.generation().manifest.format_version == 3
    assert sorted(found(reader, query, 61))[:3] == [(0, 0), (1, 0), (2, 0)]
    assert verify("shop", store).problems == []
