"""What stood at an address when it was last looked at outlives who was killed while writing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shopvision.training.features import SeenPictures

FIRST, SECOND, THIRD = (("file:///1", "m1", b"\x01" * 32), ("file:///é", "m2", b"\x02" * 32), ("x", "m3", b"\x03" * 32))


@pytest.mark.parametrize("left", [0, 1, 20, -1, None])
def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path: Path, left: int | None) -> None:
    SeenPictures(tmp_path).note([FIRST])
    file = tmp_path / "seen.jsonl"
    whole = file.read_bytes()
    SeenPictures(tmp_path).note([SECOND])
    file.write_bytes(whole + file.read_bytes()[len(whole) :][:left])
    seen = SeenPictures(tmp_path)
    assert seen.get("file:///1") == FIRST[1:]
    seen.note([THIRD])
    seen.note([("y", *THIRD[1:])])
    again = SeenPictures(tmp_path)
    assert [again.get(uri) for uri in ("file:///1", "x", "y")] == [FIRST[1:], THIRD[1:], THIRD[1:]]
    assert again.get("file:///é") == (SECOND[1:] if left in {-1, None} else None)


@pytest.mark.parametrize(
    "line", [b"\0" * 40, b"\xff\xfe", b"[]", b"1", b'{"uri": "a"}', b'{"uri": [], "fingerprint": 1, "sha256": ""}']
)
def test_lines_that_say_nothing_are_nothing(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "seen.jsonl").write_bytes(line + b"\n")
    seen = SeenPictures(tmp_path)
    seen.note([FIRST])
    assert SeenPictures(tmp_path).get("file:///1") == FIRST[1:]
