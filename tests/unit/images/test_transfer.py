"""What one transfer may cost: attempts by the clock, and bodies that are compressed once more."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from shopvision.errors import ItemError
from shopvision.images import transfer
from shopvision.images.transfer import AnotherTry, patiently, read_within, retry_after
from shopvision.settings import get_settings

BODY = bytes(range(256)) * 400


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(transfer.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(transfer.time, "sleep", clock.sleep)
    return clock


def busy_until(clock: Clock, then: float, after: float | None) -> Callable[[], str]:
    def attempt() -> str:
        if clock.now < then:
            raise AnotherTry("the server answered 429", after=after)
        return "picture"

    return attempt


def test_a_server_that_names_a_time_is_waited_for(clock: Clock) -> None:
    assert patiently("u", 120.0, busy_until(clock, 102.0, 2.0)) == "picture"
    assert 102.0 <= clock.now < 103.0


def test_it_is_waited_for_as_often_as_there_is_time(clock: Clock) -> None:
    assert patiently("u", 120.0, busy_until(clock, 113.0, 3.0)) == "picture"
    with pytest.raises(ItemError, match=r"u: the server answered 429, and asks to wait for 3 s \(attempt") as error:
        patiently("u", clock.now + 10.0, busy_until(clock, 200.0, 3.0))
    assert error.value.code == "unavailable"


def test_a_time_beyond_the_limit_is_not_waited_for(clock: Clock) -> None:
    with pytest.raises(ItemError, match="asks to wait for 3600 s"):
        patiently("u", 120.0, busy_until(clock, 200.0, 3600.0))
    assert clock.now == 100.0


def test_no_time_at_all_still_makes_pauses_grow(clock: Clock) -> None:
    attempts = 0

    def attempt() -> str:
        nonlocal attempts
        attempts += 1
        raise AnotherTry("busy", after=0.0)

    with pytest.raises(ItemError):
        patiently("u", 120.0, attempt)
    assert attempts < 10


def test_a_server_that_names_no_time_gets_three_tries(clock: Clock) -> None:
    with pytest.raises(ItemError, match=r"429 \(attempt 3\)"):
        patiently("u", 120.0, busy_until(clock, 200.0, None))
    assert clock.now < 102.0


def test_retry_after_headers() -> None:
    assert retry_after("2") == 2.0
    assert retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)) == pytest.approx(
        9, abs=2
    )
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert [retry_after(header) for header in (None, "", "soon", "-1", "1.5")] == [None] * 5


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(BODY)),
        ("X-GZIP", gzip.compress(BODY)),
        ("identity, gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_compressed_bodies_are_unpacked(encoding: str, packed: bytes, size: int) -> None:
    assert read_within(get_settings(), pieces(packed, size), "u", time.monotonic() + 9, encoding=encoding) == BODY


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("br", BODY, "content_encoding"),
        ("gzip, br", BODY, "content_encoding"),
        ("gzip", b"\xff\xd8 a plain JPEG", "content_encoding"),
        ("gzip", gzip.compress(BODY)[:-9], "truncated"),
    ],
)
def test_what_cannot_be_unpacked_is_named(encoding: str, body: bytes, code: str) -> None:
    with pytest.raises(ItemError, match="https://a/b") as error:
        read_within(get_settings(), [body], "https://a/b", time.monotonic() + 9, encoding=encoding)
    assert error.value.code == code


def test_a_body_that_unpacks_to_gigabytes_is_stopped() -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    unpacked = 0

    class Settings:
        @property
        def image_max_bytes(self) -> int:
            nonlocal unpacked
            unpacked += 1
            return 2**20

    with pytest.raises(ItemError, match="1,048,576 are allowed") as error:
        read_within(Settings(), [packed], "u", time.monotonic() + 9, encoding="gzip")
    assert error.value.code == "too_large_bytes"
    assert unpacked < 40  # pieces of 64 KiB
