"""What a training leaves behind beside its model."""

from __future__ import annotations

import json
from pathlib import Path

from shopvision.training.results import UNREADABLE_FILE, write_unreadable


def test_pictures_that_were_done_without_are_named(tmp_path: Path) -> None:
    write_unreadable(tmp_path, {})
    assert not (tmp_path / UNREADABLE_FILE).exists()
    write_unreadable(tmp_path, {"a.jpg": "gone", "b.jpg": "broken"})
    lines = [json.loads(line) for line in (tmp_path / UNREADABLE_FILE).read_text().splitlines()]
    assert lines == [{"picture": "a.jpg", "reason": "gone"}, {"picture": "b.jpg", "reason": "broken"}]
