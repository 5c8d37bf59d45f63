"""What a training leaves behind is whole, or what was there before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shopvision.training.results import UNREADABLE_FILE, replacing_folder, write_unreadable


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("first", "second"):
        with replacing_folder(folder) as new:
            new.mkdir()
            (new / content).touch()
        assert [path.name for path in folder.iterdir()] == [content]

    def fail() -> None:
        with replacing_folder(folder) as new:
            new.mkdir()
            (new / "third").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_pictures_that_were_done_without_are_named(tmp_path: Path) -> None:
    write_unreadable(tmp_path, {})
    assert not (tmp_path / UNREADABLE_FILE).exists()
    write_unreadable(tmp_path, {"a.jpg": "gone", "b.jpg": "broken"})
    lines = [json.loads(line) for line in (tmp_path / UNREADABLE_FILE).read_text().splitlines()]
    assert lines == [{"picture": "a.jpg", "reason": "gone"}, {"picture": "b.jpg", "reason": "broken"}]
