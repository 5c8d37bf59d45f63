"""What is believed of a folder of shared libraries, and what is thrown away."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from shopvision.encoders.compiled.packages import RETRY_SECONDS, UNUSED_SECONDS, Note, PackageFolder
from shopvision.storage.digests import sha256_of

KEY = {"part": "encoder", "torch": "1"}
OTHER = {"part": "encoder", "torch": "2"}


def keep(folder: PackageFolder, name: str = "one", content: bytes = b"code", key: dict[str, str] | None = None) -> Path:
    folder.prepare()
    made = folder.folder / "new"
    made.write_bytes(content)
    folder.keep(name, Note(key or KEY, sha256_of(made), None, 1.5, time.time()), made)
    return folder.library(name)


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return PackageFolder(tmp_path / "compiled")


def test_what_was_kept_is_found_again(folder: PackageFolder) -> None:
    assert folder.is_empty()
    assert folder.find("one", KEY) is None
    library = keep(folder)
    assert not folder.is_empty()
    assert folder.find("one", KEY) == library
    assert library.read_bytes() == b"code"
    assert (library.stat().st_mode & 0o777, folder.folder.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_package_of_another_key_is_never_taken(folder: PackageFolder) -> None:
    keep(folder)
    assert folder.find("one", OTHER) is None
    assert folder.find("two", KEY) is None


@pytest.mark.parametrize("harm", ["torn", "changed", "link", "writable", "no note", "torn note", "strange note"])
def test_what_cannot_be_trusted_is_never_taken(folder: PackageFolder, harm: str) -> None:
    library = keep(folder)
    note = library.with_suffix(".json")
    match harm:
        case "torn":
            library.write_bytes(b"co")
        case "changed":
            library.write_bytes(b"evil")
        case "link":
            library.rename(library.with_name("elsewhere"))
            library.symlink_to(library.with_name("elsewhere"))
        case "writable":
            library.chmod(0o666)
        case "no note":
            note.unlink()
        case "torn note":
            note.write_bytes(note.read_bytes()[:20])
        case "strange note":
            note.write_text(json.dumps({"key": KEY, "sha256": sha256_of(library)}))
    assert folder.find("one", KEY) is None
    if "note" not in harm:
        assert not os.path.lexists(library)
        assert not note.exists()
    keep(folder)  # made anew
    assert folder.find("one", KEY) == library


def test_files_of_other_users_are_not_taken(folder: PackageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder)
    os.chown(folder.library("one"), 12345, 12345) if os.getuid() == 0 else monkeypatch.setattr(os, "getuid", lambda: 1)
    assert folder.find("one", KEY) is None


def test_a_folder_that_others_may_write_to_is_not_used(folder: PackageFolder) -> None:
    keep(folder)
    folder.folder.chmod(0o777)
    assert folder.find("one", KEY) is None
    with pytest.raises(PermissionError, match="others may write to it"):
        keep(folder)


def test_a_refusal_holds_for_a_day(folder: PackageFolder) -> None:
    folder.prepare()
    folder.keep("one", Note(KEY, None, "no compiler", 0.0, time.time()))
    assert folder.refusal("one", KEY) == "no compiler"
    assert folder.refusal("one", OTHER) is None
    assert folder.find("one", KEY) is None
    folder.keep("one", Note(KEY, None, "no compiler", 0.0, time.time() - RETRY_SECONDS - 1))
    assert folder.refusal("one", KEY) is None


def test_one_process_at_a_time_makes_a_package(folder: PackageFolder) -> None:
    with folder.lock("one", wait=False) as first, folder.lock("one", wait=False) as second:
        assert (first, second) == (True, False)
        with folder.lock("two", wait=False) as other:
            assert other
    with folder.lock("one", wait=True) as again:
        assert again


def test_old_packages_make_room(folder: PackageFolder) -> None:
    now = time.time()
    for name, age in (("newest", 0), ("used", 10), ("idle", 20), ("forgotten", UNUSED_SECONDS + 60)):
        path = keep(folder, name, bytes(100))
        os.utime(path, (now - age, now - age))
    folder.prune(10_000, "newest")
    assert {path.stem for path in folder.folder.glob("*.so")} == {"newest", "used", "idle"}
    folder.prune(250, "newest")
    assert {path.stem for path in folder.folder.glob("*.so")} == {"newest", "used"}
    folder.prune(0, "newest")
    assert [path.name for path in folder.folder.glob("*.so")] == ["newest.so"]
    assert [path.name for path in folder.folder.glob("*.json")] == ["newest.json"]


def test_finding_a_package_counts_as_use(folder: PackageFolder) -> None:
    path = keep(folder)
    os.utime(path, (1, 1))
    folder.find("one", KEY)
    assert path.stat().st_mtime > 1


def test_what_broken_off_work_left_goes(folder: PackageFolder) -> None:
    keep(folder)
    for name in ("dead", "alive"):
        folder.workplace(name).mkdir()
        (folder.workplace(name) / "half").write_bytes(b"x")
    with folder.lock("alive", wait=False):
        folder.prune(10_000, "one")
    assert not folder.workplace("dead").exists()
    assert folder.workplace("alive").exists()
