"""What may go wrong between a publisher, the store, the database and readers."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from shopvision.database import connect
from shopvision.errors import JobError, ShopvisionError, TransientError
from shopvision.index import publisher_lock
from shopvision.index.collecting import collect_garbage
from shopvision.index.current import read_current
from shopvision.index.generation_rows import list_generations
from shopvision.index.going_back import rollback
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.index.verifying import verify
from shopvision.storage import ObjectStore, PreconditionFailed
from tests.integration.index.catalogue import WrappedStore, clustered, embed, notes, toy


class BrokenError(TransientError):
    """The store goes away."""


def failing_at(count: int) -> Callable[[str, str], None]:
    left = [count]

    def before(operation: str, key: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise BrokenError(f"{operation} {key}")

    return before


def test_a_store_that_fails_at_any_call_never_harms_what_is_served(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    number, survived = 0, 0
    while not survived:
        number += 1
        fresh = clustered(1, 16, seed=number)
        embed(shop.model, [number % 10], fresh)
        watched = WrappedStore(store, failing_at(number))
        before = read_current(store, "shop")[0].generation
        try:
            publish("shop", shop.model, watched)
            survived += 1
        except BrokenError:
            now = read_current(store, "shop")[0].generation
            moved = [key for operation, key in watched.calls if (operation, key) == ("put", "indexes/shop/current")]
            assert now == before or moved
            reader.refresh()
            assert reader.generation().live == 60
            publish("shop", shop.model, store)
        assert verify("shop", store).problems == []
        reader.refresh()
        assert [hit.image_id for hit in reader.search(fresh.astype(np.float32), 1)[0]] == [number % 10]
    assert number > 8  # every call of a publication failed once


def test_the_last_file_lost_before_current_moves(store: ObjectStore) -> None:
    shop = toy(60)
    before = publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=3))

    def lose(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("manifest.json"):
            store.delete([key.replace("manifest.json", "tombstones.npy")])

    with pytest.raises(TransientError, match=r"incomplete .*tombstones.npy.* not published"):
        publish("shop", shop.model, WrappedStore(store, lose))
    assert read_current(store, "shop")[0].generation == before.path
    assert {found.key.rpartition("/")[0] for found in store.list("indexes/shop/generations/")} == {before.path}
    assert publish("shop", shop.model, store).kind == "delta"


@pytest.mark.parametrize("step", ["generation_rows.record", "changes.consume"])
def test_dying_between_moving_current_and_the_database_is_mended_by_the_next(
    store: ObjectStore, reader: IndexReader, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    fresh = clustered(1, 16, seed=3)
    embed(shop.model, [1], fresh)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"shopvision.index.{step}", die)
        with pytest.raises(KeyboardInterrupt):
            publish("shop", shop.model, store)
    ahead = read_current(store, "shop")[0].generation
    assert ahead not in {row.path for row in list_generations("shop")}
    assert notes(shop.model) == 1
    assert (
        collect_garbage("shop", 1, store, grace=timedelta(0)).objects == 0
    )  # first of all it takes the generation over
    assert next((row.path, row.is_current) for row in list_generations("shop")) == (ahead, True)
    publish("shop", shop.model, store)
    assert notes(shop.model) == 0
    assert verify("shop", store).problems == []
    reader.refresh()
    assert [hit.image_id for hit in reader.search(fresh.astype(np.float32), 1)[0]] == [1]


def test_a_rollback_that_died_halfway_is_followed_by_the_database(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = toy(60)
    first = publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=3))
    publish("shop", shop.model, store)
    with monkeypatch.context() as patched:
        patched.setattr(
            "shopvision.index.generation_rows.mark_current", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            rollback("shop", store)
    assert "the database says" in verify("shop", store).problems[0]
    embed(shop.model, [2], clustered(1, 16, seed=4))
    report = publish("shop", shop.model, store)
    assert report.kind == "full"  # the note of picture 1 is gone, and the current generation lacks it
    assert read_current(store, "shop")[0].previous == first.path


def test_an_answer_that_got_lost_on_the_way_is_recognised(store: ObjectStore) -> None:
    """The store moved ``current``, its answer was lost, and the repeated request was refused."""
    shop = toy(60)

    class Echo(WrappedStore):
        def put(self, key: str, data: bytes | Path, **options: Any) -> str:
            etag = super().put(key, data, **options)
            if key.endswith("current"):
                raise PreconditionFailed("repeated")
            return etag

    report = publish("shop", shop.model, Echo(store))
    assert read_current(store, "shop")[0].generation == report.path
    assert list_generations("shop")[0].is_current


@pytest.mark.parametrize("honours", [True, False])
def test_a_foreign_move_of_current_wins_over_ours(
    store: ObjectStore, honours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two databases on one store, or a lost lock: the database lock does not help there."""
    shop = toy(60)
    publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=3))
    key = "indexes/shop/current"

    def interfere(operation: str, name: str) -> None:
        if operation == "put" and name.endswith("manifest.json"):
            store.put(key, store.get(key))

    watched = WrappedStore(store, interfere)
    monkeypatch.setattr(watched, "honours_conditional_writes", lambda: honours)
    before = store.get(key)
    with pytest.raises(TransientError, match="published by another process meanwhile"):
        publish("shop", shop.model, watched)
    assert store.get(key) == before
    assert publish("shop", shop.model, store).kind == "delta"


def test_a_lost_lock_is_noticed_before_current_moves(store: ObjectStore) -> None:
    shop = toy(60)
    before = publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=3))

    def restart_postgres(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("manifest.json"):
            with connect() as connection:
                connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))

    with pytest.raises(TransientError, match="database connection broke"):
        publish("shop", shop.model, WrappedStore(store, restart_postgres))
    assert read_current(store, "shop")[0].generation == before.path


def test_two_publishers_at_once(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(200)
    publish("shop", shop.model, store)
    embed(shop.model, range(10), clustered(10, 16, seed=3))
    barrier = threading.Barrier(2)
    reports, errors = [], []

    def run() -> None:
        barrier.wait()
        try:
            reports.append(publish("shop", shop.model, store).kind)
        except TransientError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(reports) == ["delta", "unchanged"]
    assert verify("shop", store).problems == []


def test_a_publisher_that_has_to_wait_too_long_says_so(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = toy(20)
    monkeypatch.setattr("shopvision.index.publisher_lock.LOCK_WAIT_SECONDS", 0.1)
    with (
        publisher_lock.publisher_lock("shop"),
        pytest.raises(TransientError, match="being published by another process"),
    ):
        publish("shop", shop.model, store)
    assert publish("shop", shop.model, store).kind == "full"


def test_readers_see_whole_generations_during_publish_rollback_and_collection(
    store: ObjectStore, tmp_path: Path
) -> None:
    """In generation g picture n has the vector of place (n + g) % 40: an answer tells its g, and a mix shows."""
    count = 40
    places = clustered(count, 16, seed=7, clusters=count)
    shop = toy(count)

    def turn(generation: int) -> None:
        embed(shop.model, range(count), np.roll(places, -generation, axis=0))
        publish("shop", shop.model, store)

    turn(0)
    stop = threading.Event()
    errors: list[BaseException] = []
    seen: set[int] = set()
    queries = places[[0, 13, 27]].astype(np.float32)

    def read(number: int) -> None:
        own = IndexReader(store, "shop", tmp_path / f"reader-{number % 2}")  # two share a cache
        try:
            while not stop.is_set():
                own.refresh()
                answers = own.search(queries, 1)
                turns = {(place - hits[0].image_id) % count for place, hits in zip((0, 13, 27), answers, strict=True)}
                assert len(turns) == 1, turns
                seen.update(turns)
        except (ShopvisionError, AssertionError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for generation in range(1, 13):
        turn(generation)
        if generation % 4 == 3:
            rollback("shop", store)
        collect_garbage("shop", 2, store, grace=timedelta(0))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(seen) > 3


def test_a_full_cache_disk_is_named_and_the_old_generation_serves_on(store: ObjectStore, tmp_path: Path) -> None:
    shop = toy(60)
    full = [False]

    class Cramped(WrappedStore):
        def download(self, key: str, path: Path) -> None:
            if full[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().download(key, path)

    reader = IndexReader(Cramped(store), "shop", tmp_path / "reader")
    publish("shop", shop.model, store)
    reader.refresh()
    embed(shop.model, [1], clustered(1, 16, seed=3))
    publish("shop", shop.model, store)
    full[0] = True
    with pytest.raises(JobError, match=r"No space left for index files in .*reader/shop"):
        reader.refresh()
    assert reader.search(shop.vectors[1:2].astype(np.float32), 1)[0][0].image_id == 1
    assert not list((tmp_path / "reader").rglob("partial-*"))
    full[0] = False
    assert reader.refresh()


def test_a_damaged_download_is_not_used(store: ObjectStore, tmp_path: Path) -> None:
    shop = toy(60)

    class Cutting(WrappedStore):
        def download(self, key: str, path: Path) -> None:
            super().download(key, path)
            path.write_bytes(path.read_bytes()[:-1])

    publish("shop", shop.model, store)
    with pytest.raises(TransientError, match="arrived damaged"):
        IndexReader(Cutting(store), "shop", tmp_path / "reader").refresh()


def test_a_generation_without_its_files_is_an_error_with_a_mend(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    store.delete([found.key for found in store.list("indexes/shop/generations/") if "base" in found.key])
    with pytest.raises(JobError, match=r"missing in file://.*verify"):
        reader.refresh()
