"""Reading ahead: order, bounds, slow pictures, stopping, and regions."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from shopvision.errors import ItemError, JobError, TransientError
from shopvision.images import Decoded, PictureDoor, PictureLimits, decoding
from shopvision.images.preprocessing import Preprocessing, fit, prepare
from shopvision.images.reader import PictureReader, PictureRequest, ReadPicture, UnreadPicture
from shopvision.settings import get_settings

SQUARE = Preprocessing(size=(16, 16), interpolation="bilinear")


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


class Door:
    """One picture under every address; ``on_fetch`` may wait or raise."""

    limits = PictureLimits.of(get_settings())

    def __init__(self, data: bytes = b"", on_fetch: Callable[[str], None] = lambda _: None) -> None:
        self.data = data or encoded(Image.new("RGB", (4, 4), (9, 0, 0)))
        self.on_fetch = on_fetch
        self.fetched: list[str] = []

    def fetch(self, uri: str) -> Any:
        self.fetched.append(uri)
        self.on_fetch(uri)
        return SimpleNamespace(data=self.data, sha256=b"sha", fingerprint="mark")


def reader(door: Door, prepare: Callable[[Decoded], Any] = lambda decoded: decoded.size, **options: Any) -> Any:
    return PictureReader(cast("PictureDoor", door), prepare, **options)


def requests(count: int) -> list[PictureRequest]:
    return [PictureRequest(key, str(key)) for key in range(count)]


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_picture_stalls_nobody() -> None:
    slow = threading.Event()
    door = Door(on_fetch=lambda uri: slow.wait(60) if uri == "0" else None)  # type: ignore[arg-type, return-value]
    with reader(door, threads=2, ahead=4).read(requests(300)) as reading:
        keys = [reading.take(30).key for _ in range(299)]
        slow.set()
        keys.append(reading.take(30).key)
        assert reading.take(0) is None
    assert sorted(keys) == list(range(300))
    assert keys[-1] == 0


def test_in_order_others_are_read_meanwhile_as_far_as_the_bound() -> None:
    slow = threading.Event()
    door = Door(on_fetch=lambda uri: slow.wait(60) if uri == "3" else None)  # type: ignore[arg-type, return-value]
    with reader(door, threads=2, ahead=8).read(requests(40), in_order=True) as reading:
        assert [reading.take(30).key for _ in range(3)] == [0, 1, 2]
        assert reading.take(0.2) is None
        assert sorted(map(int, door.fetched)) == list(range(3 + 8))
        slow.set()
        assert [outcome.key for outcome in reading] == list(range(3, 40))


def test_what_waits_is_bounded() -> None:
    door = Door()
    with reader(door, threads=4, ahead=10).read(requests(500)) as reading:
        soon(lambda: len(door.fetched) == 10)
        assert len(reading.take_many(7, 30.0)) == 7
        soon(lambda: len(door.fetched) == 17)
        time.sleep(0.1)  # nobody takes any: no more are read
        assert len(door.fetched) == 17


def test_fewer_decode_at_the_same_time_than_wait_for_sources() -> None:
    door, go_on, inside, most = Door(), threading.Event(), [0], [0]
    counting = threading.Lock()

    def hold(_: Decoded) -> int:
        with counting:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        assert go_on.wait(30)
        with counting:
            inside[0] -= 1
        return 0

    with reader(door, hold, threads=6, decoders=2).read(requests(20)) as reading:
        soon(lambda: len(door.fetched) == 6 and inside[0] == 2)
        go_on.set()
        assert len([reading.take(30) for _ in range(20)]) == 20
    assert most[0] <= 2


def test_closing_does_not_wait_for_slow_sources() -> None:
    slow = threading.Event()
    ended: list[str] = []

    def wait(uri: str) -> None:
        slow.wait(60)
        ended.append(uri)

    door = Door(on_fetch=wait)
    with reader(door, threads=3).read(requests(50)):
        soon(lambda: len(door.fetched) == 3)
    assert ended == []
    slow.set()
    soon(lambda: not any(thread.name.startswith("pictures-") for thread in threading.enumerate()))
    assert len(ended) == len(door.fetched) == 3


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("error", [TransientError("away"), JobError("no credentials")])
def test_what_concerns_all_is_raised(error: Exception, in_order: bool) -> None:
    def away(uri: str) -> None:
        if uri == "7":
            raise error

    with reader(Door(on_fetch=away)).read(requests(20), in_order=in_order) as reading:  # noqa: SIM117 - one thing fails
        with pytest.raises(type(error), match=str(error)):
            list(reading)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ItemError("gone", "no"), "gone"), (MemoryError(), "out_of_memory"), (ValueError("odd"), "decode_error")],
)
def test_what_concerns_one_picture_is_its_outcome(error: Exception, code: str) -> None:
    def bad(uri: str) -> None:
        if uri == "1":
            raise error

    with reader(Door(on_fetch=bad)).read(requests(3), in_order=True) as reading:
        first, second, third = reading
    assert isinstance(second, UnreadPicture)
    assert second.error.code == code
    assert first.parts == third.parts == ((4, 4),)


def quarters() -> Image.Image:
    image = Image.new("RGB", (400, 200), "white")
    for colour, box in (("red", (0, 0, 200, 100)), ("lime", (200, 0, 400, 100)), ("blue", (0, 100, 200, 200))):
        image.paste(colour, box)
    return image


def parts_of(data: bytes, regions: tuple[Any, ...] | None) -> tuple[Any, ...]:
    asked = [PictureRequest(0, "picture", regions=regions)]
    prepare = partial(fit, preprocessing=SQUARE)
    with reader(Door(data), prepare, target=SQUARE.resized).read(asked) as reading:
        outcome = reading.take(30)
    assert isinstance(outcome, ReadPicture)
    return outcome.parts


def test_each_region_has_an_outcome_of_its_own() -> None:
    regions = ((0, 0, 200, 100), (200, 0, 400, 100), (0, 100, 200, 200), (500, 0, 600, 9), (0, 0, float("nan"), 9))
    red, lime, blue, outside, no_number = parts_of(encoded(quarters()), regions)
    assert (red == (255, 0, 0)).all()
    assert (lime == (0, 255, 0)).all()
    assert (blue == (0, 0, 255)).all()
    assert [outside.code, no_number.code] == ["empty_region"] * 2
    assert parts_of(encoded(quarters()), ()) == ()


@pytest.mark.parametrize("box", [(30, 20, 230, 180), (-5.5, -3, 90.2, 400), (100.4, 50.7, 101.2, 51.1)])
def test_a_region_is_what_a_picture_cut_there_would_be(box: tuple[float, float, float, float]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (200, 400, 3), dtype=np.uint8)
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(400, int(np.ceil(box[2]))), min(200, int(np.ceil(box[3])))
    (part,) = parts_of(encoded(Image.fromarray(noise)), (box,))
    alone = encoded(Image.fromarray(noise[top:bottom, left:right]))
    np.testing.assert_array_equal(part, prepare(alone, SQUARE))


def test_regions_are_those_of_the_upright_picture() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = quarters().transpose(Image.Transpose.ROTATE_90)
    for form in ("PNG", "JPEG"):
        data = encoded(stored, form, exif=turned)
        (lime,) = parts_of(data, ((220, 10, 390, 90),))
        assert np.abs(lime.astype(int) - (0, 255, 0)).max() < 8


def test_the_scale_of_decoding_leaves_each_region_its_pixels() -> None:
    soft = np.random.default_rng(3).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    photo = Image.fromarray(soft).resize((1601, 1601), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=95)
    box = (700.0, 500.0, 900.0, 700.0)
    with decoding(data, target=(16, 16), regions=(box,)) as decoded:
        assert decoded.image.width == 201  # 1/8: the region keeps 25 pixels for 16
    with decoding(data, target=(16, 16), regions=((0, 0, 5, 5), box)) as decoded:
        assert decoded.image.width == 1601
    (part,) = parts_of(data, (box,))
    expected = prepare(encoded(photo.crop((700, 500, 900, 700))), SQUARE)
    assert np.abs(part.astype(int) - expected).mean() < 4
