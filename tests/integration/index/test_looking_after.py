from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from typer.testing import CliRunner

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.index import opening
from shopvision.index.collecting import collect_garbage
from shopvision.index.current import read_current
from shopvision.index.generation_rows import list_generations
from shopvision.index.going_back import rollback
from shopvision.index.publish import compact, publish
from shopvision.index.reader import IndexReader
from shopvision.index.repairing import repair
from shopvision.index.verifying import verify
from shopvision.storage import ObjectStore
from tests.integration.index.catalogue import WrappedStore, clustered, embed, notes, remove_items, toy
from worker.cli.index import app

NOW = timedelta(0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def folders(store: ObjectStore) -> set[str]:
    return {found.key.rpartition("/")[0] for found in store.list("indexes/shop/generations/")}


def test_rollback_serves_the_former_answers_and_the_next_publication_is_complete(
    store: ObjectStore, reader: IndexReader
) -> None:
    shop = toy(60)
    first = publish("shop", shop.model, store)
    query = shop.vectors[1:2].astype(np.float32)
    reader.refresh()
    before = reader.search(query, 10)
    embed(shop.model, [1], clustered(1, 16, seed=3))
    second = publish("shop", shop.model, store)
    reader.refresh()
    assert reader.search(query, 10) != before
    assert rollback("shop", store) == first.path
    reader.refresh()
    assert reader.search(query, 10) == before
    assert [row.path for row in list_generations("shop") if row.is_current] == [first.path]
    with pytest.raises(UserError, match="keeps no generation from before"):
        rollback("shop", store)
    third = publish("shop", shop.model, store)
    assert third.kind == "full"
    assert rollback("shop", store) == first.path  # not the one that was rolled back from
    assert second.path in {row.path for row in list_generations("shop")}


def test_compact_writes_a_full_generation(store: ObjectStore) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=3))
    publish("shop", shop.model, store)
    report = compact("shop", store)
    assert (report.kind, report.counts) == ("full", {"live": 60, "base": 60, "delta": 0, "tombstones": 0})
    with pytest.raises(UserError, match="never published"):
        compact("other", store)


def test_collection_keeps_what_kept_deltas_build_on(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(60)
    paths = [publish("shop", shop.model, store).path]
    for number in range(4):
        embed(shop.model, [number], clustered(1, 16, seed=number))
        paths.append(publish("shop", shop.model, store).path)
    report = collect_garbage("shop", 2, store, grace=NOW)
    assert report.generations == [paths[2], paths[1], paths[0]]
    assert report.objects == 3  # the manifests: all data of the chain is still read
    states = {row.path: row.state for row in list_generations("shop")}
    assert [states[path] for path in paths] == ["collected", "collected", "collected", "published", "published"]
    assert verify("shop", store).problems == []
    paths.append(compact("shop", store).path)
    paths.append(compact("shop", store).path)
    collect_garbage("shop", 2, store, grace=NOW)
    assert folders(store) == set(paths[-2:])
    assert rollback("shop", store) == paths[-2]
    reader.refresh()
    assert reader.generation().live == 60


def test_collection_leaves_readers_time(store: ObjectStore) -> None:
    shop = toy(60)
    for _ in range(4):
        publish("shop", shop.model, store, force_full=True)
    store.put("indexes/shop/generations/toy@1/20200101T000000Z-00000000/base.faiss", b"left by a crash")
    assert collect_garbage("shop", 1, store).objects == 0
    assert collect_garbage("shop", 1, store, grace=NOW).objects == 7  # two old generations and the leftover
    assert len(folders(store)) == 2  # current and its predecessor


def test_collection_forgets_notes_of_models_without_vectors(store: ObjectStore) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    embed(shop.model, [1], clustered(1, 16, seed=1))
    with connect() as connection:
        connection.execute(text("INSERT INTO index_changes (model_version_id, image_id) VALUES (99, 1)"))
    collect_garbage("shop", store=store)
    with connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM index_changes WHERE model_version_id = 99")) == 0
    assert notes(shop.model) == 1


def test_verify_finds_damage_and_drift(store: ObjectStore) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    report = verify("shop", store)
    assert (report.problems, report.live, report.in_postgres, report.pending, report.files) == ([], 60, 60, 0, 3)
    remove_items([1])
    assert (verify("shop", store).problems, verify("shop", store).pending) == ([], 1)
    with connect() as connection:
        connection.execute(text("DELETE FROM index_changes"))
    assert "holds 60 vectors, Postgres 59" in verify("shop", store).problems[0]
    [base] = [found.key for found in store.list("indexes/shop/generations/") if found.key.endswith("base.faiss")]
    store.put(base, b"x" + store.get(base)[1:])
    assert f"{base} is damaged" in verify("shop", store).problems[0]
    store.delete([base])
    assert f"{base} is missing" in verify("shop", store).problems[0]


def test_a_damaged_current_is_named(store: ObjectStore, reader: IndexReader) -> None:
    store.put("indexes/shop/current", b"{")
    with pytest.raises(JobError, match="indexes/shop/current is damaged"):
        reader.refresh()


def test_a_lost_current_is_built_anew(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(60)
    publish("shop", shop.model, store)
    store.delete(["indexes/shop/current"])
    with pytest.raises(UserError, match="never published"):
        reader.refresh()
    report = publish("shop", shop.model, store)
    assert report.kind == "full"
    assert read_current(store, "shop")[0].generation == report.path


def test_the_command_line_shows_and_goes_back(store: ObjectStore) -> None:
    shop = toy(60)
    first = publish("catalogue", shop.model, store)
    publish("catalogue", shop.model, store, force_full=True)
    run = CliRunner()
    assert "published" in run.invoke(app, ["list"]).output
    assert [row["is_current"] for row in json.loads(run.invoke(app, ["list", "--json"]).output)] == [True, False]
    assert '"problems": []' in run.invoke(app, ["verify", "--json"]).output
    assert first.path in run.invoke(app, ["rollback"]).output
    assert '"kind": "full"' in run.invoke(app, ["compact", "--json"]).output
    for key in [found.key for found in store.list("indexes/catalogue/generations/")]:
        store.delete([key] if key.endswith("ids.arrow") else [])
    assert isinstance(run.invoke(app, ["verify"]).exception, JobError)


def test_a_damaged_current_is_repaired(store: ObjectStore, reader: IndexReader) -> None:
    shop = toy(60)
    first = publish("catalogue", shop.model, store)
    second = publish("catalogue", shop.model, store, force_full=True)
    assert "nothing to repair" in repair("catalogue", store)
    for harm in (
        lambda: store.put("indexes/catalogue/current", b"{"),
        lambda: store.delete(["indexes/catalogue/current"]),
    ):
        harm()
        done = CliRunner().invoke(app, ["repair"]).output
        assert "is damaged" in done or "is missing" in done
        assert read_current(store, "catalogue")[0].generation == second.path
        assert verify("catalogue", store).problems == []
    store.put(f"{second.path}/base.faiss", b"damaged")
    assert f"Now {first.path} is current: 60 vectors of toy:1." in repair("catalogue", store)
    assert [row.path for row in list_generations("catalogue") if row.is_current] == [first.path]
    assert publish("catalogue", shop.model, store).kind == "full"
    for found in list(store.list("indexes/")):
        store.put(found.key, b"{")
    with pytest.raises(JobError, match="No published generation of index 'catalogue' is whole"):
        repair("catalogue", store)


def test_a_reader_of_the_process_follows_current(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FOLLOW_SECONDS", 0.0)
    shop = toy(60)
    first = publish("catalogue", shop.model, store)
    held = opening.open_index().generation()
    assert held.path == first.path
    second = publish("catalogue", shop.model, store, force_full=True)
    assert opening.open_index() is opening.open_index()
    until(lambda: opening.open_index().generation().path == second.path)
    assert opening.open_index().generation() is opening.open_index().generation()
    assert held.search(shop.vectors[:1].astype(np.float32), 1)[0][0].image_id == 0
    store.put("indexes/catalogue/current", b"{")
    with capture_logs() as said:
        until(lambda: bool(opening.open_index().generation()) and bool(said))
    assert said[0]["event"] == "serving the former generation"
    assert opening.open_index().generation().path == second.path


def test_no_query_waits_for_a_newer_generation(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = toy(60)
    first = publish("catalogue", shop.model, store)
    arrived, may_go = threading.Event(), threading.Event()

    def hold(operation: str, key: str) -> None:
        if operation == "download" and not key.startswith(f"{first.path}/"):
            arrived.set()
            assert may_go.wait(60)

    reader = IndexReader(WrappedStore(store, hold), "catalogue", tmp_path / "reader", follow_seconds=0.0)
    assert reader.generation().path == first.path
    embed(shop.model, [1], clustered(1, 16, seed=3))  # files with other bytes
    second = publish("catalogue", shop.model, store, force_full=True)
    assert reader.generation().path == first.path
    assert arrived.wait(60)
    threads = threading.active_count()
    for _ in range(5):  # it is on its way: nobody looks a second time
        assert reader.generation().path == first.path
    assert threading.active_count() == threads
    may_go.set()
    until(lambda: reader.generation().path == second.path)
