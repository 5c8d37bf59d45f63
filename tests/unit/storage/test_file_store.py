from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from shopvision.errors import TransientError, UserError
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, open_store, sha256_of


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/a%20store")


def test_what_was_written_is_read_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    store.put("a/b/one", b"1")
    etag = store.put("a/b/two", tmp_path / "file")
    assert store.get("a/b/one") == b"1"
    assert store.get_with_etag("a/b/two") == (b"from a file", etag)
    assert (store.stat("a/b/two").size, store.stat("a/b/two").etag) == (11, etag)
    assert [found.key for found in store.list("a/")] == ["a/b/one", "a/b/two"]
    assert [found.key for found in store.list("a/b/t")] == ["a/b/two"]
    assert [found.key for found in store.list("")] == ["a/b/one", "a/b/two"]
    store.download("a/b/two", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"from a file"
    store.delete(["a/b/one", "a/b/two", "a/b/three"])
    assert list(store.list("")) == []
    assert not (tmp_path / "a store" / "a").exists()


@pytest.mark.parametrize("method", ["get", "stat", "download"])
def test_a_missing_object_is_named(store: ObjectStore, tmp_path: Path, method: str) -> None:
    arguments = [tmp_path / "copy"] if method == "download" else []
    with pytest.raises(ObjectMissing, match="nothing/here does not exist"):
        getattr(store, method)("nothing/here", *arguments)


def test_conditions_are_honoured(store: ObjectStore) -> None:
    assert store.honours_conditional_writes()
    first = store.put("current", b"1", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.put("current", b"2", if_none_match=True)
    second = store.put("current", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        store.put("current", b"3", if_match=first)
    assert store.get_with_etag("current") == (b"2", second)
    store.delete(["current"])
    with pytest.raises(PreconditionFailed):
        store.put("current", b"3", if_match=second)
    assert list(store.list("")) == []


def test_writing_the_same_bytes_again_is_another_version(store: ObjectStore) -> None:
    etags = {store.put("current", b"same") for _ in range(200)}
    assert len(etags) == 200


def test_of_many_conditional_writers_one_wins_each_round(store: ObjectStore) -> None:
    store.put("counter", b"0")

    def add() -> None:
        done = 0
        while done < 20:
            data, etag = store.get_with_etag("counter")
            try:
                store.put("counter", str(int(data) + 1).encode(), if_match=etag)
                done += 1
            except PreconditionFailed:
                continue

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("counter") == b"80"


@pytest.mark.parametrize("key", ["../outside", "a/../../b", "/etc/passwd", "", "a//b", ".shopvision-store/lock"])
def test_keys_cannot_leave_the_folder(store: ObjectStore, key: str) -> None:
    with pytest.raises(UserError, match="not a plain relative path"):
        store.put(key, b"")


def test_a_write_that_fails_leaves_the_old_object_and_nothing_else(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("key", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="is full: free disk space"):
        store.put("key", b"new")
    assert store.get("key") == b"old"
    assert [path.name for path in (tmp_path / "a store" / ".shopvision-store").iterdir()] == ["lock"]


def test_what_is_written_must_have_the_digest_that_was_given(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one bit was flipped since")
    for data in (tmp_path / "file", b"content"):
        with pytest.raises(TransientError, match="key arrived damaged"):
            store.put("key", data, sha256="00" * 32)
    assert list(store.list("")) == []
    store.put("key", b"content", sha256=sha256_of(b"content"))
    assert store.get("key") == b"content"


@pytest.mark.parametrize("url", ["s3:///prefix", "ftp://x/y", "plain", "file://host/dir"])
def test_wrong_addresses_are_named(url: str) -> None:
    with pytest.raises(UserError, match="is not an address like"):
        open_store(url)


def test_no_store_configured_says_what_to_set() -> None:
    with pytest.raises(UserError, match="SHOPVISION_OBJECT_STORE"):
        open_store()


def test_a_store_that_ignores_conditions_is_found_out(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put = store.put
    monkeypatch.setattr(store, "put", lambda key, data, **_: put(key, data))
    assert not store.honours_conditional_writes()
    assert list(store.list("")) == []
