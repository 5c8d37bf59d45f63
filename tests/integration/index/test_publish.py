from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import text

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.index import build, drafts, filtered_search
from shopvision.index.current import read_current, read_manifest
from shopvision.index.gate import GenerationRefused
from shopvision.index.generation_rows import list_generations
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.index.verifying import verify
from shopvision.storage import ObjectStore
from tests.integration.index.catalogue import (
    Toy,
    WrappedStore,
    add_items,
    clustered,
    embed,
    make_model,
    notes,
    remove_items,
    toy,
)  # fmt: skip


def ids(reader: IndexReader, vector: np.ndarray, k: int = 10, **options: object) -> list[int]:
    reader.refresh()
    return [hit.image_id for hit in reader.search(vector[None].astype(np.float32), k, **options)[0]]


def test_a_first_publication_is_full_and_answers_as_exact_search_does(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    report = publish("shop", shop.model, store)
    assert (report.kind, report.counts) == ("full", {"live": 300, "base": 300, "delta": 0, "tombstones": 0})
    assert report.path.startswith("indexes/shop/generations/toy@1/")
    for number in (0, 17, 299):
        assert ids(reader, shop.vectors[number]) == shop.nearest(number)
    assert notes(shop.model) == 0
    [row] = list_generations("shop")
    assert (row.path, row.is_current, row.state, row.recall, row.index_type) == (
        report.path,
        True,
        "published",
        1,
        "exact",
    )
    assert row.bytes_uploaded == sum(found.size for found in store.list("indexes/shop/generations/"))


def test_nothing_changed_uploads_nothing(store: ObjectStore) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    watched = WrappedStore(store)
    report = publish("shop", shop.model, watched)
    assert (report.path, report.kind, report.bytes_uploaded) == (None, "unchanged", 0)
    assert watched.uploaded() == []


def test_a_small_change_is_a_delta_that_the_next_one_builds_on(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    full = publish("shop", shop.model, store)
    fresh = clustered(3, 16, seed=9)
    embed(shop.model, [5, 6, 7], fresh)
    remove_items([10, 11])
    add_items(300, 1)
    embed(shop.model, [300], clustered(1, 16, seed=10))

    first = publish("shop", shop.model, store)
    assert (first.kind, first.counts) == ("delta", {"live": 299, "base": 300, "delta": 4, "tombstones": 5})
    assert first.bytes_uploaded < full.bytes_uploaded / 2
    assert notes(shop.model) == 0
    assert ids(reader, fresh[0], 1) == [5]
    assert ids(reader, clustered(1, 16, seed=10)[0], 1) == [300]
    everything = ids(reader, fresh[0], 1000)
    assert sorted(everything) == sorted(set(range(301)) - {10, 11})

    embed(shop.model, [5], shop.vectors[5:6])  # back to what it was: the delta row is hidden by the newer delta
    second = publish("shop", shop.model, store)
    assert second.counts == {"live": 299, "base": 300, "delta": 5, "tombstones": 6}
    assert ids(reader, shop.vectors[5], 1) == [5]
    assert 5 not in ids(reader, fresh[0], 1)
    assert len(ids(reader, fresh[0], 1000)) == 299


def test_deltas_are_folded_into_one_before_there_are_many(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_DELTAS", 3)
    shop = toy()
    publish("shop", shop.model, store)
    expected = shop.vectors.copy()
    lengths = []
    for number in range(6):
        expected[number] = clustered(1, 16, seed=100 + number)[0]
        embed(shop.model, [number], expected[number : number + 1])
        if number == 4:
            remove_items([0])
        publish("shop", shop.model, store)
        reader.refresh()
        lengths.append(len(reader.generation().manifest.deltas))
    assert lengths == [1, 2, 3, 1, 2, 3]
    for number in range(1, 6):
        assert ids(reader, expected[number], 1) == [number]
    assert sorted(ids(reader, expected[1], 1000)) == list(range(1, 300))


def test_a_large_change_is_compacted(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    embed(shop.model, range(100), clustered(100, 16, seed=5))
    report = publish("shop", shop.model, store)
    assert (report.kind, report.counts["tombstones"]) == ("full", 0)


def test_a_changed_category_reaches_the_index(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    with connect() as connection:
        connection.execute(text("UPDATE items SET category = 'Gifts' WHERE item_id = 'item-8'"))
    assert publish("shop", shop.model, store).kind == "delta"
    assert ids(reader, shop.vectors[0], 5, category="Gifts", soft=False) == [8]


def test_what_came_and_went_between_two_publications_leaves_no_generation(store: ObjectStore) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    add_items(300, 1)
    embed(shop.model, [300], clustered(1, 16))
    remove_items([300])
    assert publish("shop", shop.model, store).kind == "unchanged"
    assert notes(shop.model) == 0


def test_a_change_made_while_publishing_stays_noted(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=1))
    later = clustered(1, 16, seed=2)

    def change_again(operation: str, key: str) -> None:
        if key.endswith("manifest.json") and operation == "put":
            embed(shop.model, [1], later)

    publish("shop", shop.model, WrappedStore(store, change_again))
    assert notes(shop.model) == 1
    publish("shop", shop.model, store)
    assert ids(reader, later[0], 1) == [1]
    assert notes(shop.model) == 0


def test_changes_that_no_trigger_saw_lead_to_a_full_generation(store: ObjectStore) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    remove_items([3])
    with connect() as connection:
        connection.execute(text("DELETE FROM index_changes"))
    report = publish("shop", shop.model, store)
    assert (report.kind, report.counts["live"]) == ("full", 299)


def test_a_missing_file_of_the_base_leads_to_a_full_generation(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    store.delete([found.key for found in store.list("indexes/shop/generations/") if found.key.endswith("base.faiss")])
    embed(shop.model, [1], clustered(1, 16, seed=1))
    assert publish("shop", shop.model, store).kind == "full"
    assert ids(reader, shop.vectors[2], 1) == [2]


def test_another_model_is_built_beside_and_served_when_it_passed(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    publish("shop", shop.model, store)
    reader.refresh()
    other = make_model("wide", "2")
    embed(other, range(300), clustered(300, 32, seed=3))
    assert reader.generation().model == "toy:1"
    report = publish("shop", other, store)
    assert (report.kind, report.path.split("/")[3]) == ("full", "wide@2")
    reader.refresh()
    assert (reader.generation().model, reader.generation().manifest.dimension) == ("wide:2", 32)


@pytest.mark.parametrize("fault", ["zero", "nan"])
def test_unsound_vectors_are_refused_and_the_old_generation_stays(
    store: ObjectStore, reader: IndexReader, fault: str
) -> None:
    shop = toy()
    before = publish("shop", shop.model, store)
    wrong = np.full((1, 16), 0 if fault == "zero" else np.nan, np.float16)
    embed(shop.model, [4], wrong)
    with pytest.raises(GenerationRefused, match="not finite and of unit length"):
        publish("shop", shop.model, store)
    assert read_current(store, "shop")[0].generation == before.path
    assert list_generations("shop")[0].state == "refused"
    assert "unit length" in list_generations("shop")[0].refused
    assert notes(shop.model) == 1
    assert ids(reader, shop.vectors[4], 1) == [4]
    embed(shop.model, [4], shop.vectors[4:5])
    assert publish("shop", shop.model, store).kind == "delta"


def test_low_recall_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = toy(400)
    monkeypatch.setattr(build, "EXACT_UP_TO", 100)
    monkeypatch.setattr(build, "HNSW_LINKS", 2)
    monkeypatch.setattr(build, "HNSW_BUILD_EFFORT", 2)
    monkeypatch.setattr("shopvision.index.gate.efforts", lambda kind: (1,))
    with pytest.raises(GenerationRefused, match=r"recall@10 is 0\.\d+"):
        publish("shop", shop.model, store)
    assert read_current(store, "shop") is None
    assert list(store.list("indexes/shop/generations/")) == []


def test_counts_must_equal_postgres(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = toy()
    monkeypatch.setattr(drafts, "count_vectors", lambda connection, model: 301)
    with pytest.raises(GenerationRefused, match="holds 300 vectors, Postgres 301"):
        publish("shop", shop.model, store)


def test_no_vectors_at_all_is_one_clear_line(store: ObjectStore) -> None:
    with pytest.raises(JobError, match="no vectors of this model"):
        publish("shop", make_model(), store)


def test_a_catalogue_that_was_emptied_publishes_an_empty_generation(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(20)
    publish("shop", shop.model, store)
    remove_items(range(20))
    assert publish("shop", shop.model, store).counts["live"] == 0
    assert ids(reader, shop.vectors[0]) == []


def test_mixed_dimensions_are_named(store: ObjectStore) -> None:
    shop = toy(20)
    embed(shop.model, [7], clustered(1, 8))
    with pytest.raises(JobError, match="Picture 7 has a vector of dimension 8, the index has 16"):
        publish("shop", shop.model, store)


def test_too_little_memory_is_said_before_building(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = toy(20)
    monkeypatch.setattr(build, "available_memory", lambda: 100)
    with pytest.raises(JobError, match="of memory to build"):
        publish("shop", shop.model, store)


def test_one_model_feeds_one_index(store: ObjectStore) -> None:
    shop = toy(20)
    publish("shop", shop.model, store)
    with pytest.raises(UserError, match="feeds index 'shop' already"):
        publish("second", shop.model, store)


def walk_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a query is compared with each of few rows."""
    monkeypatch.setattr(filtered_search, "ROWS_PER_STEP", 0)


def test_hnsw_and_ivfpq_generations_answer_like_exact_search(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_always(monkeypatch)
    shop = toy(1500, 8)
    rare = list(range(0, 1500, 150))  # scattered over the whole space: walking a graph finds few of them
    with connect() as connection:
        connection.execute(
            text("UPDATE items SET category = 'Gifts' WHERE item_id = ANY(:ids)"), {"ids": [f"item-{n}" for n in rare]}
        )
    for kind in ("hnsw", "ivfpq"):
        monkeypatch.setattr(drafts, "choose_type", lambda rows, kind=kind: kind)
        publish("shop", shop.model, store, force_full=True)
        reader.refresh()
        manifest = reader.generation().manifest
        assert (manifest.index_type, manifest.recall >= 0.95) == (kind, True)
        found = [len(set(ids(reader, shop.vectors[n])) & set(shop.nearest(n))) for n in range(0, 1500, 50)]
        assert np.mean(found) >= 9.3
        assert sorted(ids(reader, shop.vectors[7], 10, category="Gifts", soft=False)) == rare
        for category, soft in (("Men/Tops", False), ("Women/Tops", True)):
            inside = [
                hit.category for hit in reader.search(shop.vectors[:1].astype(np.float32), 10, category, soft=soft)[0]
            ]
            assert len(inside) == 10
            assert all(path == category or path.startswith(f"{category}/") for path in inside)


def test_the_manifest_says_what_a_reader_needs(store: ObjectStore) -> None:
    shop = toy(30)
    report = publish("shop", shop.model, store)
    manifest = read_manifest(store, read_current(store, "shop")[0])
    assert (manifest.path, manifest.model, manifest.dimension, manifest.parent) == (report.path, "toy:1", 16, None)
    assert sorted(file.key.rpartition("/")[2] for file in manifest.files) == ["base.faiss", "ids.arrow"]


def share_vector(shop: Toy, numbers: range) -> None:
    """All these pictures show the same placeholder."""
    shop.vectors[list(numbers)] = shop.vectors[numbers[0]]
    embed(shop.model, numbers, shop.vectors[list(numbers)])


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq"])
def test_a_placeholder_of_many_items_is_indexed_once(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(drafts, "choose_type", lambda rows: kind)
    walk_always(monkeypatch)
    shop = toy(1500, 16)
    share_vector(shop, range(100, 400))
    report = publish("shop", shop.model, store)
    assert report.counts == {"live": 1500, "base": 1500, "delta": 0, "tombstones": 0}
    reader.refresh()
    manifest = reader.generation().manifest
    [rows] = [file.key for file in manifest.files if file.key.endswith("vector_rows.npy")]
    assert rows.startswith(report.path)
    assert verify("shop", store).problems == []

    assert ids(reader, shop.vectors[100], 300) == list(range(100, 400))  # equal answers in the order of the pictures
    assert ids(reader, shop.vectors[100], 7) == list(range(100, 107))
    assert sorted(ids(reader, shop.vectors[3], 1500)) == list(range(1500))
    inside = ids(reader, shop.vectors[100], 60, category="Men/Bottoms", soft=False)
    assert inside == list(range(102, 400, 5))
    assert len(ids(reader, shop.vectors[100], 70, category="Men/Bottoms", soft=False)) == 70
    np.testing.assert_array_equal(reader.generation().vectors_of("item-250")[0], shop.vectors[100].astype(np.float32))

    embed(shop.model, [200], shop.vectors[:1])  # one of them gets a picture of its own, one goes
    remove_items([300])
    assert publish("shop", shop.model, store).counts == {"live": 1499, "base": 1500, "delta": 1, "tombstones": 2}
    assert ids(reader, shop.vectors[100], 298) == sorted({*range(100, 400)} - {200, 300})
    assert set(ids(reader, shop.vectors[0], 2)) == {0, 200}
    remove_items(range(100, 200))
    assert publish("shop", shop.model, store).counts["live"] == 1399
    assert ids(reader, shop.vectors[250], 198) == sorted({*range(201, 400)} - {300})


def test_a_placeholder_does_not_break_a_large_graph(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal vectors have no neighbours in a graph but each other: with 4.5 % of them no generation passed the gate."""
    monkeypatch.setattr(build, "EXACT_UP_TO", 1_000)
    shop = toy(4_000, 16)
    share_vector(shop, range(1_000, 1_400))
    publish("shop", shop.model, store)
    [row] = list_generations("shop")
    assert (row.index_type, row.live) == ("hnsw", 4_000)


def test_a_category_far_from_the_query_is_found(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph leads to what is near; what a filter allows may lie elsewhere."""
    monkeypatch.setattr(drafts, "choose_type", lambda rows: "hnsw")
    walk_always(monkeypatch)
    count = 5 * 400
    shop = toy(count, 16)
    random = np.random.default_rng(1)
    centres = np.eye(5, 16, dtype=np.float32)  # one for each of the five categories
    for spread in (0.15, 0.6):  # apart; and touching, so that the walk reaches the edge of the other category
        vectors = centres[np.arange(count) % 5] + spread / 4 * random.standard_normal((count, 16), dtype=np.float32)
        shop.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        embed(shop.model, range(count), shop.vectors)
        publish("shop", shop.model, store)
        reader.refresh()
        assert reader.generation().manifest.index_type == "hnsw"
        queries = shop.vectors[:50:5].astype(np.float32)
        of_others = np.flatnonzero(np.arange(count) % 5 == 2)
        right = np.argsort(-(queries @ shop.vectors[of_others].astype(np.float32).T), axis=1, kind="stable")
        for k in (10, 40, 390):
            found = reader.search(queries, k, "Men/Bottoms", soft=False)
            assert [len(hits) for hits in found] == [k] * len(queries)
            same = [
                len({hit.image_id for hit in hits} & set(of_others[best[:k]]))
                for hits, best in zip(found, right, strict=True)
            ]
            assert np.mean(same) >= 0.95 * k


def test_hidden_rows_do_not_make_answers_short(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tombstones are a filter too: a whole region may be gone."""
    monkeypatch.setattr(drafts, "choose_type", lambda rows: "hnsw")
    walk_always(monkeypatch)
    monkeypatch.setattr(drafts, "COMPACT_RATIO", 1)
    shop = toy(1_000, 16)
    centres = np.eye(5, 16, dtype=np.float32)[np.arange(1_000) % 5]
    centres += 0.04 * np.random.default_rng(1).standard_normal((1_000, 16), dtype=np.float32)
    shop.vectors = (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype(np.float16)
    embed(shop.model, range(1_000), shop.vectors)
    publish("shop", shop.model, store)
    remove_items(range(0, 1_000, 5))
    assert publish("shop", shop.model, store).kind == "delta"
    found = ids(reader, shop.vectors[0], 30)
    right = [number for number in shop.nearest(0, 1_000) if number % 5]
    assert len(found) == 30
    assert len(set(found) & set(right[:30])) >= 28


def test_many_queries_are_answered_as_arrays(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy()
    share_vector(shop, range(20, 40))
    publish("shop", shop.model, store)
    embed(shop.model, [5, 6], clustered(2, 16, seed=9))
    publish("shop", shop.model, store)
    queries = shop.vectors[::10].astype(np.float32)
    reader.refresh()
    generation = reader.generation()
    for category in (None, "Men/Tops", "No/Such"):
        near = generation.nearest(queries, 12, category)
        hits = generation.search(queries, 12, category, soft=False)
        assert (near.scores.dtype, near.pictures.dtype) == (np.float32, np.int64)
        assert [int((row >= 0).sum()) for row in near.pictures] == [len(row) for row in hits]
        for scores, pictures, row in zip(near.scores, near.pictures, hits, strict=True):
            there = pictures >= 0
            assert generation.item_ids(pictures[there]) == [hit.item_id for hit in row]
            assert scores[there].tolist() == [hit.score for hit in row]
            assert (scores[~there] == -np.inf).all()
