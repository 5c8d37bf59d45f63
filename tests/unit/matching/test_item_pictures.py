"""Pictures of items: what cannot be read stops nothing else, and nobody waits for what nobody needs."""

from __future__ import annotations

import io
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from shopvision.errors import ItemError
from shopvision.images import PictureDoor
from shopvision.images.decoding import PictureLimits
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item import Item
from shopvision.matching.scoring import item_pictures as pictures
from shopvision.matching.scoring.item_pictures import read_pictures
from shopvision.settings import get_settings

PREPROCESSING = Preprocessing(size=(8, 8))


class Door:
    """Gives one red picture under any address but ``gone``; an address ``slow-N`` takes a while."""

    limits = PictureLimits.of(get_settings())

    def __init__(self) -> None:
        self.fetched: list[str] = []
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (250, 0, 0)).save(file, "PNG")
        self.data = file.getvalue()

    def fetch(self, uri: str) -> Any:
        self.fetched.append(uri)
        if uri.startswith("slow"):
            time.sleep(0.05)
        if uri == "gone":
            raise ItemError("not_found", "gone: there is no such file.")
        if uri == "huge":
            raise MemoryError
        return SimpleNamespace(data=self.data, sha256=b"", fingerprint="")


def read(door: Door, items: list[Item], **options: Any) -> list[Any]:
    found: dict[int, Any] = {}
    for some in read_pictures(items, PREPROCESSING, cast("PictureDoor", door), **options):
        found |= some
    return [found[row] for row in range(len(items))]


def test_each_item_has_its_picture_or_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES_AT_ONCE", 2)
    door = Door()
    items = [Item("a", picture="red"), Item("b"), Item("c", picture="gone"), Item("d", picture="huge"), Item("e")]

    def check(item: Item) -> None:
        if item.item_id == "e":
            raise ItemError("no_text", "nothing to read")

    found = read(door, items, check=check)
    assert found[0].shape == (8, 8, 3)
    assert found[0][0, 0].tolist() == [250, 0, 0]
    assert found[1] is None
    assert [(error.code, error.message) for error in found[2:]] == [
        ("not_found", "Item 'c': gone: there is no such file."),
        ("out_of_memory", "Item 'd': huge: not enough memory to decode the picture."),
        ("no_text", "nothing to read"),
    ]
    assert sorted(door.fetched) == ["gone", "huge", "red"]


def test_whoever_stops_does_not_wait_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES_AT_ONCE", 40)
    door = Door()
    items = [Item(str(number), picture="red" if number < 40 else f"slow-{number}") for number in range(80)]
    batches = read_pictures(items, PREPROCESSING, cast("PictureDoor", door))
    assert len(next(batches)) == 40
    batches.close()  # type: ignore[attr-defined] # a generator
    assert 40 <= len(door.fetched) < 80


def test_a_slow_picture_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES_AT_ONCE", 10)
    monkeypatch.setattr(pictures, "PATIENCE_SECONDS", 0.1)
    arrived = threading.Event()

    class SlowDoor(Door):
        def fetch(self, uri: str) -> Any:
            if uri == "late":
                arrived.wait(10)
            return super().fetch(uri)

    items = [Item("late", picture="late"), *(Item(str(number), picture="red") for number in range(60))]
    batches = read_pictures(items, PREPROCESSING, cast("PictureDoor", SlowDoor()))
    seen: list[int] = []
    while len(seen) < 60:
        seen += next(batches)
    assert 0 not in seen
    assert next(batches) == {}  # whoever reads can look whether to go on
    arrived.set()
    assert [row for batch in batches for row in batch] == [0]
