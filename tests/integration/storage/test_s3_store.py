"""The S3 store against a server over real HTTP, with a proxy in between that does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stamina

from shopvision.errors import TransientError, UserError
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, open_store
from shopvision.storage import s3 as s3_module
from tests.integration.storage.faulty_proxy import FaultyProxy


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture
def store(s3: str) -> ObjectStore:
    return open_store()


@pytest.fixture
def proxy(s3: str, s3_server: str, set_environment: Callable[..., None]) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server) as proxy:
        set_environment(SHOPVISION_S3_ENDPOINT_URL=proxy.url)
        yield proxy


def test_what_was_written_is_read_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    store.put("a/b/one", b"1")
    etag = store.put("a/b/two", tmp_path / "file")
    assert store.url == "s3://shop/vision"
    assert store.get("a/b/one") == b"1"
    assert store.get_with_etag("a/b/two") == (b"from a file", etag)
    assert (store.stat("a/b/two").size, store.stat("a/b/two").etag) == (11, etag)
    assert [found.key for found in store.list("a/")] == ["a/b/one", "a/b/two"]
    store.download("a/b/two", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"from a file"
    store.delete(["a/b/one", "a/b/two", "a/b/three"])
    assert list(store.list("")) == []


def test_conditions_are_honoured(store: ObjectStore) -> None:
    assert store.honours_conditional_writes()
    first = store.put("current", b"1", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.put("current", b"2", if_none_match=True)
    store.put("current", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        store.put("current", b"3", if_match=first)
    store.delete(["current"])
    with pytest.raises(PreconditionFailed):
        store.put("current", b"3", if_match=first)
    assert list(store.list("")) == []


def test_missing_things_are_named(store: ObjectStore, tmp_path: Path) -> None:
    for call in (store.get, store.stat, lambda key: store.download(key, tmp_path / "x")):
        with pytest.raises(ObjectMissing, match="s3://shop/vision/no/thing"):
            call("no/thing")
    with pytest.raises(UserError, match="Bucket 'absent' does not exist"):
        open_store("s3://absent/x").put("key", b"")


def test_large_files_go_up_in_parts(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "MULTIPART_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 4096 * 11)
    store.put("large", path)
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("fault", ["500", "503", "429", "drop", "lost answer"])
def test_passing_faults_are_retried(proxy: FaultyProxy, tmp_path: Path, fault: str) -> None:
    store = open_store()
    proxy.faults = [fault, fault]
    (tmp_path / "file").write_bytes(b"content")
    store.put("key", tmp_path / "file")
    proxy.faults = [fault, fault]
    assert store.get("key") == b"content"
    assert proxy.requests == ["PUT"] * 3 + ["GET"] * 3


def test_a_cut_download_is_repeated(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = open_store()
    store.put("key", b"content" * 1000)
    proxy.faults = ["cut", "", "cut"]
    store.download("key", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content" * 1000
    proxy.faults = ["cut"]
    assert store.get("key") == b"content" * 1000


@pytest.mark.parametrize("fault", ["500", "503", "drop"])
def test_lasting_faults_are_transient_errors(proxy: FaultyProxy, fault: str) -> None:
    proxy.faults = [fault] * 10
    with pytest.raises(TransientError, match=r"s3://shop/vision/key: the object store (answers|does not answer)"):
        open_store().put("key", b"")
    assert len(proxy.requests) == 4


def test_no_rights_is_the_users_to_mend(proxy: FaultyProxy) -> None:
    proxy.faults = ["403"] * 10
    with pytest.raises(UserError, match="give no right"):
        open_store().stat("key")
    assert len(proxy.requests) == 1


def test_a_failed_multipart_upload_leaves_nothing(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MULTIPART_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)
    path = tmp_path / "large"
    path.write_bytes(bytes(11 * 2**20))
    store = open_store()
    proxy.faults = ["", "", "503", "503", "503", "503"]
    with pytest.raises(TransientError):
        store.put("large", path)
    assert proxy.requests == ["POST", "PUT", "PUT", "PUT", "PUT", "PUT", "DELETE"]
    assert list(store.list("")) == []


def test_nothing_listens(s3: str, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_S3_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(TransientError, match="does not answer"):
        open_store().get("key")
