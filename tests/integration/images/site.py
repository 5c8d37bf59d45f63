"""A web server on loopback that plays every site there is, and what leads public addresses to it."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest
from PIL import Image

from shopvision.errors import ItemError
from shopvision.images import PictureDoor
from shopvision.images.reasons import REASONS

PUBLIC = "93.184.215.14"
NAMES = {"cdn.example": [PUBLIC], "inside.example": ["10.0.0.7"], "both.example": [PUBLIC, "127.0.0.1"]}


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Site:
    """A web server on loopback whose pages are functions."""

    pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    server: ThreadingHTTPServer | None = None


class Dialler(httpcore.SyncBackend):
    """Leads the public address to the test site, and notes every address that was dialled."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.dialled: list[str] = []

    def connect_tcp(self, host: str, *args: object, **kwargs: object) -> httpcore.NetworkStream:
        self.dialled.append(host)
        assert host == PUBLIC
        return super().connect_tcp("127.0.0.1", self.port)


def resolver(host: str, port: int) -> list[str]:
    if host in NAMES:
        return NAMES[host]
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def answer(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    return page


def silent(request: BaseHTTPRequestHandler) -> None:
    """No answer before the one who asked hangs up, or half a minute is over."""
    request.connection.settimeout(30)
    with suppress(OSError):
        request.connection.recv(1)


def asking_for_a_second(
    status: int, page: Callable[[BaseHTTPRequestHandler], None]
) -> Callable[[BaseHTTPRequestHandler], None]:
    """``page``, but for the first second: who comes back sooner than he was told is sent away again."""
    asked: list[float] = []

    def limited(request: BaseHTTPRequestHandler) -> None:
        asked.append(time.monotonic())
        early = asked[-1] < asked[0] + 0.9
        (answer(b"<Error><Code>SlowDown</Code></Error>", status, Retry_After="1") if early else page)(request)

    return limited


def refused(door: PictureDoor, uri: str) -> str:
    with pytest.raises(ItemError) as error:
        door.fetch(uri)
    assert error.value.code in REASONS
    assert "\n" not in error.value.message
    return error.value.code
