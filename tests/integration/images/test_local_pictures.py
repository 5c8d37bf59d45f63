"""Pictures in local folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.images import PictureDoor, allow_image_root, allowed_image_roots
from shopvision.settings import get_settings
from tests.integration.images.site import jpeg, refused


@pytest.fixture
def root(tmp_path: Path, set_environment: Callable[..., None]) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg())
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    set_environment(SHOPVISION_IMAGE_ROOTS=str(root))
    return root


def test_a_file_and_its_fingerprint(root: Path) -> None:
    with PictureDoor(get_settings()) as door:
        uri = f"file://{root}/a.jpg"
        picture = door.fetch(uri)
        assert picture.data == jpeg()
        assert door.fingerprint(uri) == picture.fingerprint
        os.utime(root / "a.jpg", ns=(1, 1))
        assert door.fingerprint(uri) != picture.fingerprint


def test_names_with_odd_characters(root: Path) -> None:
    (root / "빨강 #1?.jpg").write_bytes(jpeg())
    with PictureDoor(get_settings()) as door:
        assert door.fetch(f"file://{root}/빨강 #1?.jpg").data == jpeg()
        assert door.fetch((root / "빨강 #1?.jpg").as_uri()).data == jpeg()


def test_names_that_are_not_utf8(root: Path) -> None:
    path = root / os.fsdecode(b"\xbb\xf3\xc7\xb0.jpg")  # EUC-KR
    path.write_bytes(jpeg())
    with PictureDoor(get_settings()) as door:
        assert door.fetch(path.as_uri()).data == jpeg()


def test_a_replaced_file_of_the_same_age_has_another_fingerprint(root: Path) -> None:
    with PictureDoor(get_settings()) as door:
        uri = (root / "a.jpg").as_uri()
        before = door.fingerprint(uri)
        (root / "b.jpg").write_bytes(jpeg())
        shutil.copystat(root / "a.jpg", root / "b.jpg")
        (root / "b.jpg").replace(root / "a.jpg")
        assert door.fingerprint(uri) != before


def test_a_link_that_takes_a_files_place_after_the_check_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = os.path.realpath

    def swap_after(path: str) -> str:
        found = checked(path)
        (root / "a.jpg").unlink()
        (root / "a.jpg").symlink_to(root.parent / "secret.jpg")
        return found

    with PictureDoor(get_settings()) as door:
        monkeypatch.setattr("shopvision.images.local.os.path.realpath", swap_after)
        assert refused(door, f"file://{root}/a.jpg") == "bad_address"


def test_paths_out_of_the_allowed_folder_are_refused(root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    with PictureDoor(get_settings()) as door:
        for path in ("../secret.jpg", "%2e%2e/secret.jpg", "sub/../../secret.jpg", "link.jpg"):
            assert refused(door, f"file://{root}/{path}") == "outside_roots"
        assert refused(door, "file:///etc/passwd") == "outside_roots"
        assert refused(door, f"file://{root}s/a.jpg") == "outside_roots"


def test_what_is_not_an_ordinary_file(root: Path, set_environment: Callable[..., None]) -> None:
    os.mkfifo(root / "pipe.jpg")
    with PictureDoor(get_settings()) as door:
        assert refused(door, f"file://{root}/pipe.jpg") == "not_a_file"
        assert refused(door, f"file://{root}") == "not_a_file"
        assert refused(door, f"file://{root}/none.jpg") == "not_found"
        assert refused(door, f"file://{root}/a.jpg%00.png") == "bad_address"
    set_environment(SHOPVISION_IMAGE_MAX_BYTES="10")
    with PictureDoor(get_settings()) as door:
        assert refused(door, f"file://{root}/a.jpg") == "too_large_bytes"


def test_an_import_on_a_local_stack_allows_its_folder(tmp_path: Path) -> None:
    allow_image_root(get_settings(), tmp_path / "shop")
    allow_image_root(get_settings(), tmp_path / "shop" / "images")
    assert allowed_image_roots(get_settings()) == (tmp_path / "shop",)
