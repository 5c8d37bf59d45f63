"""Publishing and reading through the S3 API, with real HTTP faults in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import stamina

from shopvision.errors import TransientError
from shopvision.index.collecting import collect_garbage
from shopvision.index.going_back import rollback
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.index.verifying import verify
from shopvision.storage import open_store
from tests.integration.index.catalogue import clustered, embed, toy
from tests.integration.storage.faulty_proxy import FaultyProxy


@pytest.fixture
def proxy(database: None, s3: str, s3_server: str, set_environment: Callable[..., None]) -> Iterator[FaultyProxy]:
    with stamina.set_testing(True, attempts=3, cap=True), FaultyProxy(s3_server) as proxy:
        set_environment(SHOPVISION_S3_ENDPOINT_URL=proxy.url)
        yield proxy


def test_a_life_of_an_index_on_s3(proxy: FaultyProxy, tmp_path: Path) -> None:
    shop = toy(100)
    first = publish("shop", shop.model)
    reader = IndexReader(open_store(), "shop", tmp_path / "reader")
    fresh = clustered(1, 16, seed=4)
    embed(shop.model, [3], fresh)
    assert publish("shop", shop.model).kind == "delta"
    reader.refresh()
    assert reader.search(fresh.astype(np.float32), 1)[0][0].image_id == 3
    assert verify("shop").problems == []
    assert rollback("shop") == first.path
    reader.refresh()
    assert reader.search(shop.vectors[3:4].astype(np.float32), 1)[0][0].image_id == 3
    publish("shop", shop.model)
    collect_garbage("shop", 1)
    assert verify("shop").problems == []


@pytest.mark.parametrize("fault", ["500", "503", "drop", "lost answer"])
def test_one_fault_at_any_request_is_outlived(proxy: FaultyProxy, fault: str) -> None:
    """``lost answer`` also hits the conditional move: done, answer lost, repeated, refused, recognised."""
    shop = toy(60)
    publish("shop", shop.model)
    embed(shop.model, [1], clustered(1, 16, seed=1))
    store = open_store()
    assert store.honours_conditional_writes()
    before = len(proxy.requests)
    proxy.every_request_once = fault
    assert publish("shop", shop.model, store).kind == "delta"
    assert len(proxy.requests) >= 2 * 10
    proxy.every_request_once = ""
    assert before
    assert verify("shop").problems == []


def test_a_store_that_stays_away_leaves_the_old_generation(proxy: FaultyProxy, tmp_path: Path) -> None:
    shop = toy(60)
    first = publish("shop", shop.model)
    embed(shop.model, [1], clustered(1, 16, seed=1))
    for healthy in (0, 4, 8):
        store = open_store()
        assert store.honours_conditional_writes()
        proxy.faults = [""] * healthy + ["503"] * 100
        with pytest.raises(TransientError):
            publish("shop", shop.model, store)
        proxy.faults = []
        reader = IndexReader(open_store(), "shop", tmp_path / f"reader-{healthy}")
        assert reader.generation().path == first.path
    assert publish("shop", shop.model).kind == "delta"


@pytest.mark.parametrize("server", ["refuses_deletes", "compares_quotes"])
def test_servers_with_ways_of_their_own_are_published_to(proxy: FaultyProxy, server: str) -> None:
    setattr(proxy, server, True)
    shop = toy(60)
    publish("shop", shop.model)
    embed(shop.model, [1], clustered(1, 16, seed=1))
    assert publish("shop", shop.model).kind == "delta"
    assert open_store().honours_conditional_writes() is (server == "refuses_deletes")
    for _ in range(3):
        publish("shop", shop.model, force_full=True)
    assert (collect_garbage("shop", 1, grace=timedelta(0)).objects == 0) is (server == "refuses_deletes")
    assert verify("shop").problems == []


@pytest.mark.parametrize("file", ["base.faiss", "ids.arrow", "manifest.json", "current"])
def test_no_flipped_bit_is_published(proxy: FaultyProxy, tmp_path: Path, file: str) -> None:
    flips = [1]
    proxy.rule = lambda method, path: (
        "flip" if method == "PUT" and path.endswith(file) and flips and flips.pop() else ""
    )
    shop = toy(60)
    publish("shop", shop.model)
    assert flips == []
    assert verify("shop").problems == []
    assert IndexReader(open_store(), "shop", tmp_path / "reader").generation().live == 60


def test_what_arrives_damaged_every_time_is_not_published(proxy: FaultyProxy) -> None:
    proxy.rule = lambda method, path: "flip" if method == "PUT" and path.endswith("base.faiss") else ""
    shop = toy(60)
    with pytest.raises(TransientError, match=r"base\.faiss arrived damaged"):
        publish("shop", shop.model)
    assert list(open_store().list("indexes/")) == []
