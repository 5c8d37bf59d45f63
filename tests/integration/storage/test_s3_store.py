"""The S3 store against a server over real HTTP, with a proxy in between that does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stamina

from shopvision.errors import TransientError, UserError
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, close_stores, open_store
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
        open_store().put("first", b"")  # tries out what the server can do
        proxy.requests.clear()
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
    assert proxy.requests == ["PUT"] * 3 + ["GET"] + ["GET"] * 3


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
    assert [found.key for found in store.list("")] == ["first"]


@pytest.mark.parametrize("server", ["computes checksums", "ignores checksums"])
@pytest.mark.parametrize("size", [10, 11 * 2**20])
def test_a_bit_flipped_on_the_way_is_sent_again(
    s3_server: str, s3: str, tmp_path: Path, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    server: str, size: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(s3_module, "MULTIPART_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)
    (tmp_path / "file").write_bytes(bytes(size))
    with FaultyProxy(s3_server) as proxy:
        proxy.checks_uploads = server == "computes checksums"
        set_environment(SHOPVISION_S3_ENDPOINT_URL=proxy.url)
        store = open_store()
        flips = ["/key"] * 2
        proxy.rule = lambda method, path: "flip" if method == "PUT" and flips and flips.pop() in path else ""
        store.put("first", b"")
        flips += ["/key"] * 2
        proxy.requests.clear()
        store.put("key", tmp_path / "file")
        assert flips == []
        assert store.get("key") == bytes(size)
        assert ("GET" in proxy.requests[:-1]) is (server == "ignores checksums")


def test_conditional_writes_are_checked_too(proxy: FaultyProxy) -> None:
    """``current`` is damaged once: it is written again on top of our own damaged one."""
    store = open_store()
    proxy.faults = ["flip"]
    first = store.put("current", b"one", if_none_match=True)
    assert store.get_with_etag("current") == (b"one", first)
    proxy.faults = ["flip"]
    store.put("current", b"two", if_match=first)
    assert store.get("current") == b"two"


def test_what_always_arrives_damaged_is_an_error(proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.rule = lambda method, path: "flip" if method == "PUT" else ""
    with pytest.raises(TransientError, match="s3://shop/vision/key arrived damaged"):
        open_store().put("key", b"content")


def test_a_file_that_changed_before_it_was_sent_is_an_error(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(11 * 2**20))
    with pytest.raises(TransientError, match="arrived damaged"):
        store.put("key", tmp_path / "file", sha256="00" * 32)
    monkeypatch.setattr(s3_module, "MULTIPART_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)
    with pytest.raises(TransientError, match="changed while it was uploaded"):
        store.put("parts", tmp_path / "file", sha256="00" * 32)
    assert [found.key for found in store.list("parts")] == []


def test_a_server_that_compares_etags_with_their_quotes_has_no_use_of_conditions(proxy: FaultyProxy) -> None:
    assert open_store().honours_conditional_writes()
    proxy.compares_quotes = True
    close_stores()
    assert not open_store().honours_conditional_writes()


def test_a_lost_answer_does_not_make_conditions_useless(proxy: FaultyProxy) -> None:
    proxy.every_request_once = "lost answer"
    assert open_store().honours_conditional_writes()


def test_a_server_that_refuses_deletes_is_written_to(proxy: FaultyProxy) -> None:
    proxy.refuses_deletes = True
    close_stores()
    store = open_store()
    assert store.honours_conditional_writes()
    store.put("key", b"content")
    assert {found.key.partition("/")[0] for found in store.list("")} == {"first", "key", "probes"}


def test_one_store_for_each_address_closed_with_its_connections(s3: str) -> None:
    store = open_store()
    store.put("key", b"content")
    assert open_store() is store
    assert open_store("s3://shop/other") is not store
    close_stores()
    assert open_store() is not store
    assert store.get("key") == b"content"
    store.close()


def test_nothing_listens(s3: str, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_S3_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(TransientError, match="does not answer"):
        open_store().get("key")
